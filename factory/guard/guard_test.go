package guard

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	if err := Call(l, "x", func() error { return io.EOF }); !errors.Is(err, io.EOF) || log.Len() > 0 {
		t.Error(err, log.String())
	}
	var m map[string]int
	if err := Call(l, "counting", func() error { m["a"]++; return nil }); err == nil || !strings.Contains(err.Error(), "counting") {
		t.Error(err)
	}
	if s := log.String(); !strings.Contains(s, "part=counting") || !strings.Contains(s, "guard_test.go") {
		t.Error("the log does not say where:", s)
	}
}

// TestHandler panics before and during an answer. Other requests are answered.
func TestHandler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	srv := httptest.NewServer(Handler(slog.New(slog.NewTextHandler(&log, nil)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/before":
			panic("before")
		case "/inside":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
			panic("inside")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		http.ServeFile(w, r, path)
	})))
	defer srv.Close()
	for path, want := range map[string]string{"/before": "500", "/inside": "cut", "/abort": "cut", "/good": "200"} {
		got := "cut"
		if resp, err := srv.Client().Get(srv.URL + path); err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got = resp.Status[:3]; err != nil {
				got = "cut"
			}
			if path == "/good" && len(b) != 1<<20 {
				t.Errorf("%d bytes", len(b))
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	srv.Close()
	if s := log.String(); strings.Count(s, "msg=panic") != 2 || !strings.Contains(s, "HTTP GET /before") {
		t.Error(s)
	}
}
