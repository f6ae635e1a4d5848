package provision

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// testJob returns a job on a recovery device of 4 GiB, and its log.
func testJob(t *testing.T, p policy.Policy, keys ...signature.PublicKey) (*provisioning, *bytes.Buffer) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	log := &bytes.Buffer{}
	m := &machine.Machine{
		Log:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Site: site.Stock(), Policy: p, Keys: keys, Firmware: layout.UEFI, Serial: "S1",
	}
	table, err := layout.ForRecovery(layout.UEFI, layout.Device{Size: 4 * layout.GiB, SectorSize: 512}, m.Labels(), machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	e := jobtest.Env(m)
	t.Cleanup(func() {
		if err := e.Queue.Close(); err != nil {
			t.Error(err)
		}
	})
	return &provisioning{Machine: m, env: e, plan: Plan{Unit: state.Unit{Recovery: state.Disk{Table: table}}}}, log
}

// serve answers with the given files, and 404 for all others.
func serve(t *testing.T, files map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(content))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestFetchManifest(t *testing.T) {
	key, other := keytest.New(t), keytest.New(t)
	const (
		good  = `{"Files": [{"Src": "norm_boot", "Sha256": "00"}], "LogEndpoint": "https://h:1"}`
		whole = `{"Files": [{"Src": "../norm_boot"}], "LogEndpoint": "https://h:1"}`
		path  = "/files/manufData.json"
	)
	forManifest := signature.ManifestComment("WIDGET", "1")
	signed := policy.Policy{Keys: []string{key.Public().String()}}
	tests := []struct {
		name   string
		policy policy.Policy
		files  map[string]string
		want   *fault.Fault
		says   string
	}{
		{"missing", signed, nil, fault.ManifestMissing, "no such file"},
		{"signature alone", signed, map[string]string{path + ".minisig": keytest.Sign(t, key, whole, forManifest)}, fault.ManifestMissing, path},
		{"not JSON", signed, map[string]string{path: "<html>", path + ".minisig": keytest.Sign(t, key, "<html>", forManifest)}, fault.ManifestSyntax, "line 1"},
		{"empty", signed, map[string]string{path: "", path + ".minisig": keytest.Sign(t, key, "", forManifest)}, fault.ManifestSyntax, ""},
		{"malformed hash", signed, map[string]string{path: good, path + ".minisig": keytest.Sign(t, key, good, forManifest)}, fault.ManifestSyntax, "Sha256"},
		{"unsigned", signed, map[string]string{path: whole}, fault.ManifestUnsigned, path + ".minisig"},
		{"unsigned and allowed", policy.Policy{AllowUnsigned: true}, map[string]string{path: whole}, nil, ""},
		{"signed by another key", signed, map[string]string{path: whole, path + ".minisig": keytest.Sign(t, other, whole, forManifest)}, fault.ManifestSignature, "no trusted key"},
		{"badly signed where unsigned is allowed", policy.Policy{AllowUnsigned: true, Keys: signed.Keys},
			map[string]string{path: whole, path + ".minisig": keytest.Sign(t, other, whole, forManifest)}, fault.ManifestSignature, ""},
		{"changed after signing", signed, map[string]string{path: whole + " ", path + ".minisig": keytest.Sign(t, key, whole, forManifest)}, fault.ManifestSignature, "does not hold"},
		{"signed as an image", signed, map[string]string{path: whole, path + ".minisig": keytest.Sign(t, key, whole, signature.ImageComment("WIDGET.LNX.SHINY.2026-11-22.0001.upd"))},
			fault.ManifestSignature, "image WIDGET"},
		{"no signature in the file", signed, map[string]string{path: whole, path + ".minisig": "<html>"}, fault.ManifestSignature, "minisign"},
		{"huge signature", signed, map[string]string{path: whole, path + ".minisig": strings.Repeat("x", signature.MaxSize+1)}, fault.ManifestMissing, "16384 bytes"},
		{"good", signed, map[string]string{path: whole, path + ".minisig": keytest.Sign(t, key, whole, forManifest)}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.files)
			j, _ := testJob(t, tt.policy)
			if len(tt.policy.Keys) > 0 {
				j.Keys = []signature.PublicKey{key.Public()}
			}
			j.env.Survey.Args.ManifestURL = s.URL + path
			got, err := j.fetchManifest(t.Context())
			if fault.Of(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %v saying %q", err, tt.want, tt.says)
			}
			if err == nil && got.Full.Files[0].Src != s.URL+"/norm_boot" {
				t.Errorf("not resolved: %+v", got.Full.Files)
			}
			if tt.want == fault.ManifestSignature && got.Full != nil {
				t.Error("a refused manifest is kept")
			}
		})
	}
}

// until is a log that ends something at the first record with a text.
type until struct {
	*bytes.Buffer
	text string
	end  func()
}

func (u until) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(u.text)) {
		u.end()
	}
	return u.Buffer.Write(b)
}

// TestFetchManifestNoServer takes the server away: before the first byte, and between manifest and signature.
func TestFetchManifestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String() + "/manufData.json"
	l.Close()

	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Listener.Close()
		w.Header().Set("Connection", "close")
		w.Write([]byte("{}"))
	}))
	defer s.Close()

	for name, url := range map[string]string{"closed port": gone, "gone after the manifest": s.URL + "/manufData.json"} {
		t.Run(name, func(t *testing.T) {
			j, log := testJob(t, policy.Policy{AllowUnsigned: true})
			j.env.Survey.Args.ManifestURL = url
			// The job is patient. The test ends its patience at the first pause.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			j.Machine.Log = slog.New(slog.NewTextHandler(until{log, "trying again", cancel}, nil))
			_, err := j.fetchManifest(ctx)
			if fault.Of(err) != fault.NoServer || !strings.Contains(err.Error(), url) {
				t.Errorf("got %v, want NoServer", err)
			}
			if !strings.Contains(log.String(), "trying again") {
				t.Errorf("it was not tried again: %s", log)
			}
		})
	}
}

func TestManifestAddress(t *testing.T) {
	for _, url := range []string{"", "manufData.json", "file:///manufData.json", "tftp://10.0.0.1/manufData.json", "http://[::1", "ftp://h/m"} {
		j, _ := testJob(t, policy.Policy{AllowUnsigned: true})
		j.env.Survey.Args.ManifestURL = url
		if _, err := j.fetchManifest(t.Context()); fault.Of(err) != fault.ManifestMissing {
			t.Errorf("%q: got %v, want ManifestMissing", url, err)
		}
	}
}

// TestPermit: a complete unit is provisioned again only if somebody wants just that: on the server, or at the machine.
func TestPermit(t *testing.T) {
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	for _, tc := range []struct {
		name     string
		reply    string
		complete bool
		keys     []panel.Key // nil: no panel has keys
		want     *fault.Fault
		asks     bool
	}{
		{"a new unit", `{"allowed":true}`, false, yes, nil, false},
		{"the server says no", `{"allowed":false,"reason":"provisioned already"}`, false, yes, fault.NotReleased, false},
		{"complete, and the server says no", `{"allowed":false,"reason":"provisioned already"}`, true, yes, fault.NotReleased, false},
		{"complete and released", `{"allowed":true,"released":true}`, true, no, nil, false},
		{"complete, and a person says yes", `{"allowed":true}`, true, yes, nil, true},
		{"complete, and a person says no", `{"allowed":true}`, true, no, fault.NotReleased, true},
		{"complete, and nobody can answer", `{"allowed":true}`, true, nil, fault.NotReleased, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(tc.reply)) }))
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(server.Certificate())
			j, _ := testJob(t, policy.Policy{})
			var err error
			if j.client, err = report.New(report.Config{Endpoint: server.URL, CA: pool, Unit: "S1", Key: state.NewKey(), Boot: "b1"}); err != nil {
				t.Fatal(err)
			}
			j.HasRecovery, j.Panel = tc.complete, panel.New()
			asked := false
			if tc.keys != nil {
				j.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { asked = true; return tc.keys }})
			}
			if err := j.permit(t.Context()); fault.Of(err) != tc.want || tc.want == nil && err != nil || asked != tc.asks {
				t.Errorf("got %v, asked: %t", err, asked)
			}
		})
	}
}
