package report

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/policy"
)

var errAgain = errors.New("tried again")

func TestSource(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain":
			http.Redirect(w, r, "http://"+r.Host+"/file", http.StatusFound)
		case "/elsewhere":
			http.Redirect(w, r, "https://elsewhere.example/file", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/file", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			w.Write([]byte("content"))
		}
	}))
	defer s.Close()
	address, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	good := policy.Policy{FetchHosts: []string{address.Host}, FetchCA: ca, FetchPins: []string{policy.Pin(s.Certificate())}}
	with := func(change func(*policy.Policy)) policy.Policy { p := good; change(&p); return p }
	for _, c := range []struct {
		name, path string
		policy     policy.Policy
		want       *fault.Fault
	}{
		{"good", "/file", good, nil},
		{"no pins", "/file", with(func(p *policy.Policy) { p.FetchPins = nil }), nil},
		{"redirect on the same host", "/here", good, nil},
		{"redirect to http", "/plain", good, fault.FetchRefused},
		{"redirect to another host", "/elsewhere", good, fault.FetchRefused},
		{"redirects without end", "/loop", good, fault.FetchRefused},
		{"another key", "/file", with(func(p *policy.Policy) { p.FetchPins = []string{"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} }), fault.FetchRefused},
		{"another host", "/file", with(func(p *policy.Policy) { p.FetchHosts = []string{"updates.example"} }), fault.FetchRefused},
		{"no CA", "/file", with(func(p *policy.Policy) { p.FetchCA = "" }), fault.Download},
	} {
		client, err := NewSource(c.policy, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Fetch(t.Context(), FetchOptions{URL: s.URL + c.path, Dest: filepath.Join(t.TempDir(), "file"), Client: client,
			wait: func(context.Context, time.Duration) error { return errAgain }})
		if fault.Of(err) != c.want || c.want == nil && (err != nil || got.Size != 7) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && errors.Is(err, errAgain) {
			t.Errorf("%s: tried again: %v", c.name, err)
		}
	}
}

// TestSourceProxy: a proxy of the environment is asked for the way. The environment is read once in a process, so this runs itself again.
func TestSourceProxy(t *testing.T) {
	const host = "updates.example:443"
	if os.Getenv("GPROV_PROXY_INSIDE") != "" {
		client, err := NewSource(policy.Policy{FetchHosts: []string{"updates.example"}}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get("https://updates.example/file"); err == nil {
			t.Error("a proxy that refuses lets through")
		}
		return
	}
	asked := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Method + " " + r.Host:
		default:
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSourceProxy$")
	cmd.Env = append(os.Environ(), "GPROV_PROXY_INSIDE=1", "https_proxy="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "no_proxy=", "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	select {
	case got := <-asked:
		if got != "CONNECT "+host {
			t.Errorf("the proxy is asked for %q", got)
		}
	default:
		t.Error("the proxy is not asked")
	}
}
