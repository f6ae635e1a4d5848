package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
)

// interrupted makes a call that ends after some mebibytes, as if the unit lost power: nothing is cleaned up.
func interrupted(t *testing.T) *fetchTest {
	t.Helper()
	f := newFetch(t)
	f.o.Resume = true
	ctx, cancel := context.WithCancel(t.Context())
	f.o.Progress = func(done, _ int64) {
		if done >= 2<<20 {
			cancel()
		}
	}
	f.src.cut = func(int) int { return 2 << 20 }
	if _, err := Fetch(ctx, f.o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.o.Progress, f.src.cut = nil, nil
	f.src.asks.Store(0)
	if names, err := Parts(filepath.Dir(f.o.Dest)); err != nil || !slices.Equal(names, []string{"x.upd"}) {
		t.Fatalf("parts %q, %v", names, err)
	}
	return f
}

func (f *fetchTest) note() note {
	f.Helper()
	b, err := os.ReadFile(f.o.Dest + noteSuffix)
	if err != nil {
		f.Fatal(err)
	}
	n, err := parseNote(b)
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// tidy fails unless only the file is left.
func (f *fetchTest) tidy() {
	f.Helper()
	list, err := os.ReadDir(filepath.Dir(f.o.Dest))
	if err != nil || len(list) > 1 || len(list) == 1 && list[0].Name() != "x.upd" {
		f.Errorf("left behind: %v, %v", list, err)
	}
}

func TestFetchTakesUp(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*fetchTest)
		resumed bool
	}{
		"as it was":      {func(*fetchTest) {}, true},
		"no size wanted": {func(f *fetchTest) { f.o.Size = 0 }, true},
		"no hash wanted": {func(f *fetchTest) { f.o.SHA256, f.o.SHA1 = "", "" }, true},
		"more arrived than was noted": {func(f *fetchTest) {
			p, err := os.OpenFile(f.o.Dest+partSuffix, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				f.Fatal(err)
			}
			defer p.Close()
			if _, err := p.Write(make([]byte, 4<<20)); err != nil {
				f.Fatal(err)
			}
		}, true},
		"less is there than was noted": {func(f *fetchTest) {
			if err := os.Truncate(f.o.Dest+partSuffix, 1000); err != nil {
				f.Fatal(err)
			}
		}, false},
		"a bit differs": {func(f *fetchTest) {
			b, err := os.ReadFile(f.o.Dest + partSuffix)
			if err != nil {
				f.Fatal(err)
			}
			b[1000] ^= 1
			if err := os.WriteFile(f.o.Dest+partSuffix, b, 0o600); err != nil {
				f.Fatal(err)
			}
		}, false},
		"the part is gone": {func(f *fetchTest) { os.Remove(f.o.Dest + partSuffix) }, false},
		"the note is gone": {func(f *fetchTest) { os.Remove(f.o.Dest + noteSuffix) }, false},
		"the note is half": {func(f *fetchTest) { os.Truncate(f.o.Dest+noteSuffix, 20) }, false},
		"the note is a link": {func(f *fetchTest) {
			if err := errors.Join(os.Rename(f.o.Dest+noteSuffix, filepath.Join(f.TempDir(), "note")), os.Symlink("/dev/zero", f.o.Dest+noteSuffix)); err != nil {
				f.Fatal(err)
			}
		}, false},
		"the part is a link": {func(f *fetchTest) {
			other := filepath.Join(f.TempDir(), "other")
			if err := errors.Join(os.Rename(f.o.Dest+partSuffix, other), os.Symlink(other, f.o.Dest+partSuffix)); err != nil {
				f.Fatal(err)
			}
		}, false},
		"another address": {func(f *fetchTest) { f.o.URL += "?v=2" }, false},
		"another size":    {func(f *fetchTest) { f.src.data = f.src.data[:1<<20]; f.o.Size, f.o.SHA256, f.o.SHA1 = 1<<20, "", "" }, false},
		"the server has another version": {func(f *fetchTest) {
			f.src.data = bytes.Repeat([]byte("y"), len(f.src.data))
			f.src.etag, f.o.SHA256, f.o.SHA1 = `"v2"`, "", ""
		}, false},
		"the server has another version under the same ETag": {func(f *fetchTest) {
			f.src.data = bytes.Clone(f.src.data)
			f.src.data[3] ^= 1
			sum := sha256.Sum256(f.src.data)
			f.o.SHA256, f.o.SHA1 = hex.EncodeToString(sum[:]), ""
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := interrupted(t)
			if n := f.note(); n.Size < 1<<20 || n.Total != f.o.Size || n.ETag != `"v1"` {
				t.Fatalf("note %+v", n)
			}
			f.T = t
			c.change(f)
			if r := f.good(); (r.Resumed > 0) != c.resumed {
				t.Errorf("%+v, resumed wanted: %v", r, c.resumed)
			}
			f.tidy()
		})
	}
}

// TestFetchAcrossRestarts needs several calls for one file: each gets a mebibyte, and then the server is gone.
func TestFetchAcrossRestarts(t *testing.T) {
	f := newFetch(t)
	f.o.Resume, f.o.Attempts = true, 1
	sent := 0
	f.src.reply = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("ETag", f.src.etag)
		if sent++; sent < 4 {
			http.ServeContent(&cutter{w, 1 << 20}, r, "", time.Time{}, bytes.NewReader(f.src.data))
			return true
		}
		return false
	}
	had := int64(0)
	for range 3 {
		f.o.Patience = time.Nanosecond
		if _, err := Fetch(t.Context(), f.o); fault.Of(err) != fault.DownloadTruncated && fault.Of(err) != fault.Download {
			t.Fatal(err)
		}
		n := f.note()
		if n.Size <= had {
			t.Fatalf("%d bytes, before that %d", n.Size, had)
		}
		had = n.Size
	}
	f.o.Patience = 0
	if r := f.good(); r.Attempts != 1 || r.Resumed != had {
		t.Errorf("%+v, %d bytes were there", r, had)
	}
	f.tidy()
}

// TestFetchKeepsNothingHopeless: what no later call could use is removed.
func TestFetchKeepsNothingHopeless(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fetchTest)
		want   *fault.Fault
	}{
		"gone from the server": {func(f *fetchTest) {
			f.src.reply = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }
		}, fault.Download},
		"wrong content": {func(f *fetchTest) { f.o.SHA256 = strings.Repeat("0", 64) }, fault.DownloadHash},
		"no space":      {func(f *fetchTest) { f.o.free = func(string) (int64, error) { return 1 << 20, nil } }, fault.NoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			f := interrupted(t)
			f.T = t
			c.change(f)
			if _, err := Fetch(t.Context(), f.o); fault.Of(err) != c.want {
				t.Error(err)
			}
			f.tidy()
		})
	}
	t.Run("without Resume", func(t *testing.T) {
		f := interrupted(t)
		f.T, f.o.Resume = t, false
		if r := f.good(); r.Resumed != 0 {
			t.Errorf("%+v", r)
		}
		f.tidy()
	})
}

// TestFetchNotes: while a large file arrives, notes vouch for it.
func TestFetchNotes(t *testing.T) {
	f := newFetch(t)
	f.src.data = make([]byte, 2*noteEvery+(4<<20))
	f.o.Size, f.o.SHA256, f.o.SHA1, f.o.Resume = 0, "", "", true
	var seen []int64
	f.o.Progress = func(done, _ int64) {
		if b, err := os.ReadFile(f.o.Dest + noteSuffix); err == nil {
			n, err := parseNote(b)
			if err != nil || n.Size > done {
				t.Errorf("at %d: %+v, %v", done, n, err)
			}
			if !slices.Contains(seen, n.Size) {
				seen = append(seen, n.Size)
			}
		}
	}
	f.good()
	if len(seen) != 2 || seen[0] < noteEvery || seen[1] < 2*noteEvery {
		t.Errorf("noted %d", seen)
	}
	f.tidy()
}

func FuzzParseNote(f *testing.F) {
	b, err := json.Marshal(note{Version: 1, URL: "http://x/y", ETag: `"v1"`, Total: 10, Size: 5, SHA256: strings.Repeat("0", 64)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNote(b); err == nil && (n.Size <= 0 || n.Total != 0 && n.Total < n.Size || strings.ContainsAny(n.ETag, "\r\n")) {
			t.Errorf("%+v", n)
		}
	})
}
