package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"gprovision/factory"
	"gprovision/factory/store"
	"gprovision/model/record"
	"gprovision/model/secret"
	unitreport "gprovision/unit/report"
)

// serverRun is a running gprov serve.
type serverRun struct {
	https, http string
	stop        context.CancelFunc
	done        chan error
}

// startServe runs the verb in this process until the test ends.
func startServe(t *testing.T, s *ServeCmd) *serverRun {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	run := &serverRun{stop: cancel, done: make(chan error, 1)}
	go func() {
		err := s.Run(&Context{Context: ctx, Stdout: w, Stderr: io.Discard})
		w.CloseWithError(io.EOF)
		run.done <- err
	}()
	var out bytes.Buffer
	buf := make([]byte, 4096)
	for run.https == "" {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if m := regexp.MustCompile(`(?m)^ready https=(\S+) http=(\S+)$`).FindStringSubmatch(out.String()); m != nil {
			run.https, run.http = m[1], m[2]
		}
		if err != nil {
			t.Fatalf("the server ended: %s%v", out.String(), <-run.done)
		}
	}
	go io.Copy(io.Discard, r)
	t.Cleanup(cancel)
	return run
}

// TestServe starts the server, lets a unit enrol and get its credentials, reads them as an operator in both ways, and stops.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	data, pass := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(pass, []byte("correct horse\n"), 0o600))
	var out, errOut bytes.Buffer
	c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errOut}
	must((&ServeCmd{Data: data, Init: true}).Run(c))
	ca := strings.TrimSpace(out.String())
	if ca != filepath.Join(data, "ca.pem") || !strings.Contains(errOut.String(), "admin.password") {
		t.Errorf("%q %q", out.String(), errOut.String())
	}
	// Nobody sits at a terminal: what is printed ends in a journal.
	first := filepath.Join(data, "admin.password")
	if b, err := os.ReadFile(first); err != nil || len(b) < 17 || strings.Contains(errOut.String(), strings.TrimSpace(string(b))) {
		t.Errorf("%s %v %s", b, err, errOut.String())
	}
	if st, err := os.Stat(first); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	errOut.Reset()
	must((&ServeCmd{Data: data, Init: true}).Run(c))
	if errOut.Len() > 0 {
		t.Errorf("the password is shown again, or changed: %s", errOut.String())
	}
	key := filepath.Join(dir, "op")
	must((&VaultKeygenCmd{Out: key}).Run(c))
	if err := (&VaultKeygenCmd{Out: key}).Run(c); err == nil {
		t.Error("a private key was overwritten")
	}
	if st, err := os.Stat(key + ".key"); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}

	serve := ServeCmd{Data: data, NoNetboot: true, Address: "127.0.0.1", IPXE: dir, Manifest: "manufData.json", OperatorKey: []string{key + ".pub"}, AdminPasswordFile: pass}
	bad := serve
	bad.OperatorKey = []string{key + ".key"}
	if err := bad.Run(c); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Error("the server takes a private key:", err)
	}
	run := startServe(t, &serve)
	second := serve
	if err := second.Run(c); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Error(err)
	}

	resp, err := http.Get("http://" + run.http + "/ca.pem")
	must(err)
	pem, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal(string(pem))
	}
	client, err := unitreport.New(unitreport.Config{Endpoint: run.https, CA: pool, Unit: "SN 7/8", Boot: "b", Key: ed25519.NewKeyFromSeed(make([]byte, 32))})
	must(err)
	defer client.Close()
	db, err := store.Open(t.Context(), filepath.Join(data, factory.StoreFile))
	must(err)
	defer db.Close()
	must(db.AddToken(t.Context(), "tok", store.Token{MAC: "52:54:00:00:00:01", Serial: "SN 7/8", Created: time.Now(), Expires: time.Now().Add(time.Minute)}))
	must(client.Enrol(t.Context(), record.EnrolRequest{Token: secret.Secret("tok"), MACs: []string{"52:54:00:00:00:01"}}, nil))
	cr, err := client.Credentials(t.Context())
	must(err)
	must(client.Confirm(t.Context(), cr.Generation))

	remote := VaultSource{Server: "https://" + run.https, CA: ca, Operator: "admin", PasswordFile: pass}
	for _, src := range []VaultSource{remote, {Data: data, Operator: "admin"}} {
		out.Reset()
		must((&VaultReadCmd{VaultSource: src, Identity: key + ".key", JSON: true, Unit: "SN 7/8"}).Run(c))
		if got, err := record.ParseCredentials(out.Bytes()); err != nil || got != cr {
			t.Error("another password", err)
		}
	}
	out.Reset()
	must((&VaultReadCmd{VaultSource: remote, Identity: key + ".key", Unit: "SN 7/8"}).Run(c))
	if !strings.Contains(out.String(), "os    "+cr.OS.Reveal()+"\n") {
		t.Error("no plain form")
	}
	out.Reset()
	must((&VaultListCmd{VaultSource: remote, JSON: true, Unit: "SN 7/8"}).Run(c))
	var l vaultList
	must(json.Unmarshal(out.Bytes(), &l))
	if len(l.Secrets) != 1 || len(l.Readings) != 3 || l.Secrets[0].Confirmed.IsZero() {
		t.Errorf("%+v", l)
	}

	other := filepath.Join(dir, "other")
	must((&VaultKeygenCmd{Out: other}).Run(c))
	wrong := remote
	wrong.PasswordFile = ca
	for name, cmd := range map[string]*VaultReadCmd{
		"another operator's key": {VaultSource: remote, Identity: other + ".key", Unit: "SN 7/8"},
		"no such unit":           {VaultSource: remote, Identity: key + ".key", Unit: "SN-9"},
		"wrong password":         {VaultSource: wrong, Identity: key + ".key", Unit: "SN 7/8"},
		"no CA":                  {VaultSource: VaultSource{Server: remote.Server, Operator: "admin", PasswordFile: pass}, Identity: key + ".key", Unit: "SN 7/8"},
		"plain":                  {VaultSource: VaultSource{Server: "http://" + run.http, Operator: "admin", PasswordFile: pass}, Identity: key + ".key", Unit: "SN 7/8"},
		"no source":              {Identity: key + ".key", Unit: "SN 7/8"},
		"no data":                {VaultSource: VaultSource{Data: dir}, Identity: key + ".key", Unit: "SN 7/8"},
	} {
		out.Reset()
		if err := cmd.Run(c); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v %s", name, err, out.String())
		}
	}

	// A watcher does not hold up the end.
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+run.https+"/v1/changes", nil)
	must(err)
	r.SetBasicAuth("admin", "correct horse")
	d, err := remote.remote()
	must(err)
	stream, err := d.client.Do(r)
	must(err)
	defer stream.Body.Close()
	began := time.Now()
	run.stop()
	if err := <-run.done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %v", took)
	}
}

func TestServeCheck(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	var out bytes.Buffer
	c := &Context{Context: t.Context(), Stdout: &out, Stderr: io.Discard}
	s := &ServeCmd{Data: data, Check: true, Address: "127.0.0.1", NoNetboot: true, Manifest: "manufData.json", IPXE: t.TempDir()}
	if err := s.Run(c); err == nil || !strings.Contains(out.String(), "--init") {
		t.Error(out.String(), err)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a check makes the directory")
	}
	if err := (&ServeCmd{Data: data, Init: true}).Run(c); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := s.Run(c); err == nil {
		t.Error("all is well without files and keys")
	}
	for _, want := range []string{"ok       database", "problem  operator keys", "vault keygen", "provision.pxe is missing", "Debian package ipxe", "ok       HTTPS port 0 of 127.0.0.1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestFirstPassword shows the first password on a terminal, and leaves no file then.
func TestFirstPassword(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	data := filepath.Join(t.TempDir(), "data")
	if code := run(&Context{Context: t.Context(), Stdout: io.Discard, Stderr: slave}, []string{"serve", "--init", "--data", data}); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	line, err := bufio.NewReader(master).ReadString('\n')
	if err != nil || !strings.Contains(line, "shown this once") {
		t.Errorf("%q %v", line, err)
	}
	if _, err := os.Stat(filepath.Join(data, "admin.password")); err == nil {
		t.Error("there is a file, too")
	}
}

// TestServeListens looks where HTTPS answers: at the station's address and at those that were named, and nowhere else; in HTTP/1.1, and
// with the word to come back encrypted.
func TestServeListens(t *testing.T) {
	for name, c := range map[string]struct {
		more        []string
		open, quiet string
	}{
		"usual":   {nil, "127.0.0.1", "127.0.0.3"},
		"another": {[]string{"127.0.0.3"}, "127.0.0.3", "127.0.0.1"},
		"all":     {[]string{"0.0.0.0"}, "127.0.0.3", ""},
	} {
		s := ServeCmd{Data: filepath.Join(t.TempDir(), "data"), NoNetboot: true, Address: "127.0.0.2", Manifest: "manufData.json", IPXE: t.TempDir(), HTTPSAddress: c.more}
		run := startServe(t, &s)
		_, port, _ := net.SplitHostPort(run.https)
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}, ForceAttemptHTTP2: true}
		get := func(host string) (*http.Response, error) {
			return (&http.Client{Transport: tr}).Get("https://" + net.JoinHostPort(host, port) + "/v1/time")
		}
		for _, host := range []string{"127.0.0.2", c.open} {
			resp, err := get(host)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			resp.Body.Close()
			if resp.ProtoMajor != 1 || resp.TLS.NegotiatedProtocol == "h2" || resp.Header.Get("Strict-Transport-Security") == "" {
				t.Errorf("%s: %s %q %v", name, resp.Proto, resp.TLS.NegotiatedProtocol, resp.Header)
			}
		}
		if c.quiet != "" {
			if resp, err := get(c.quiet); err == nil {
				resp.Body.Close()
				t.Errorf("%s: it listens on %s", name, c.quiet)
			}
		}
		tr.CloseIdleConnections()
		run.stop()
		if err := <-run.done; err != nil {
			t.Error(err)
		}
	}
	if err := (&ServeCmd{Data: t.TempDir(), NoNetboot: true, Address: "127.0.0.2", HTTPSAddress: []string{"x"}, IPXE: t.TempDir(), Manifest: "m"}).Run(&Context{Context: t.Context(), Stdout: io.Discard, Stderr: io.Discard}); err == nil {
		t.Error("an address that is none")
	}
}
