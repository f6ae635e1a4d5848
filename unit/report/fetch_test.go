package report

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gprovision/model/fault"
)

// source serves one file, and misbehaves on request.
type source struct {
	data  []byte
	etag  string
	asks  atomic.Int32
	cut   func(ask int) int // bytes before the connection breaks, -1: never
	reply func(ask int, w http.ResponseWriter, r *http.Request) bool
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(s.asks.Add(1))
	if s.reply != nil && s.reply(n, w, r) {
		return
	}
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	if s.cut != nil {
		if k := s.cut(n); k >= 0 {
			w = &cutter{w, k}
		}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		c.ResponseWriter.Write(p[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

type fetchTest struct {
	*testing.T
	src  *source
	o    FetchOptions
	time time.Time
}

func newFetch(t *testing.T) *fetchTest {
	data := make([]byte, 3<<20+17)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(data)
	f := &fetchTest{T: t, src: &source{data: data, etag: `"v1"`}, time: time.Unix(0, 0)}
	srv := httptest.NewServer(f.src)
	t.Cleanup(srv.Close)
	sum, sum1 := sha256.Sum256(data), sha1.Sum(data)
	f.o = FetchOptions{URL: srv.URL + "/x.upd", Dest: filepath.Join(t.TempDir(), "x.upd"), Size: int64(len(data)), SHA256: strings.ToUpper(hex.EncodeToString(sum[:])), SHA1: hex.EncodeToString(sum1[:])}
	f.o.ReadBack = func(p string) (io.ReadCloser, error) { return os.Open(p) }
	f.o.now = func() time.Time { return f.time }
	f.o.wait = func(ctx context.Context, d time.Duration) error { f.time = f.time.Add(d); return ctx.Err() }
	return f
}

func (f *fetchTest) good() Fetched {
	f.Helper()
	r, err := Fetch(f.Context(), f.o)
	if err != nil {
		f.Fatal(err)
	}
	got, err := os.ReadFile(f.o.Dest)
	if err != nil || !bytes.Equal(got, f.src.data) || r.Size != int64(len(got)) {
		f.Error("another content", err)
	}
	f.clean()
	return r
}

func (f *fetchTest) bad(kind *fault.Fault) error {
	f.Helper()
	_, err := Fetch(f.Context(), f.o)
	if fault.Of(err) != kind {
		f.Errorf("%v, want %s", err, kind.Code)
	}
	// The text must send the reader to the server, or to the device.
	if says := map[bool]string{true: f.o.URL, false: f.o.Dest}[kind == fault.Download || kind == fault.DownloadTruncated]; err != nil &&
		(kind != fault.DownloadHash && kind != fault.NoSpace && kind != fault.DiskWrite) && !strings.Contains(err.Error(), says) {
		f.Errorf("%v: it does not say %s", err, says)
	}
	if _, err := os.Stat(f.o.Dest); !errors.Is(err, os.ErrNotExist) {
		f.Error("a file is there")
	}
	f.clean()
	return err
}

func (f *fetchTest) clean() {
	f.Helper()
	if _, err := os.Stat(f.o.Dest + ".part"); !errors.Is(err, os.ErrNotExist) {
		f.Error("a part is left")
	}
}

func TestFetch(t *testing.T) {
	for name, test := range map[string]func(*fetchTest){
		"plain": func(f *fetchTest) {
			var last, total int64
			f.o.Progress = func(d, t int64) { last, total = d, t }
			if r := f.good(); r.Attempts != 1 || last != r.Size || total != r.Size || !strings.EqualFold(r.SHA256, f.o.SHA256) {
				f.Errorf("%+v, %d of %d", r, last, total)
			}
		},
		"no size": func(f *fetchTest) { f.o.Size = 0; f.good() },
		"empty": func(f *fetchTest) {
			f.src.data = nil
			f.o.Size, f.o.SHA256, f.o.SHA1 = 0, "", ""
			f.good()
		},
		"stale part": func(f *fetchTest) {
			if err := os.WriteFile(f.o.Dest+".part", []byte("old"), 0o600); err != nil {
				f.Fatal(err)
			}
			f.good()
		},
		"resumed": func(f *fetchTest) {
			f.src.cut = func(n int) int {
				if n < 4 {
					return 1 << 20
				}
				return -1
			}
			if r := f.good(); r.Attempts != 4 && r.Attempts != 3 || r.Resumed < 1<<20 {
				f.Errorf("%+v", r)
			}
		},
		"no etag": func(f *fetchTest) {
			f.src.etag = ""
			f.src.cut = func(n int) int {
				if n == 1 {
					return 1 << 20
				}
				return -1
			}
			if r := f.good(); r.Resumed != 0 {
				f.Errorf("resumed without anything that vouches for it: %+v", r)
			}
		},
		"changed meanwhile": func(f *fetchTest) {
			old := bytes.Repeat([]byte("x"), len(f.src.data))
			f.src.reply = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 1 {
					return false
				}
				w.Header().Set("ETag", `"v0"`)
				http.ServeContent(&cutter{w, 1 << 20}, r, "", time.Time{}, bytes.NewReader(old))
				return true
			}
			f.good()
		},
		"server comes back": func(f *fetchTest) {
			f.src.reply = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n < 4 {
					w.WriteHeader(503)
				}
				return n < 4
			}
			f.good()
			if d := f.time.Sub(time.Unix(0, 0)); d != 7*time.Second {
				f.Errorf("pauses of %v in all, want 1+2+4 s", d)
			}
		},
		"wrong content once": func(f *fetchTest) {
			f.src.reply = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					w.Write(make([]byte, len(f.src.data)))
				}
				return n == 1
			}
			f.good()
		},
		"wrong content": func(f *fetchTest) { f.src.data[7] ^= 1; f.bad(fault.DownloadHash) },
		"wrong sha1 alone": func(f *fetchTest) {
			f.o.SHA256, f.o.SHA1 = "", strings.Repeat("0", 40)
			if err := f.bad(fault.DownloadHash); !strings.Contains(err.Error(), "SHA-1") {
				f.Error(err)
			}
		},
		"too short": func(f *fetchTest) {
			f.src.data = f.src.data[:100]
			f.bad(fault.DownloadHash)
			if n := f.src.asks.Load(); n != 1 {
				f.Errorf("%d requests for a file of the wrong size", n)
			}
		},
		"too long": func(f *fetchTest) { f.o.Size = 100; f.bad(fault.DownloadHash) },
		"over the limit": func(f *fetchTest) {
			f.o.Size, f.o.MaxSize = 0, 1000
			f.bad(fault.DownloadHash)
		},
		"endless": func(f *fetchTest) {
			f.o.Size, f.o.MaxSize = 0, 1<<20
			f.src.reply = func(_ int, w http.ResponseWriter, r *http.Request) bool {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						break
					}
				}
				return true
			}
			f.bad(fault.DownloadHash)
		},
		"truncated again and again": func(f *fetchTest) {
			f.src.cut = func(int) int { return 0 }
			f.bad(fault.DownloadTruncated)
			if n := f.src.asks.Load(); n != 8 {
				f.Errorf("%d requests", n)
			}
		},
		"not found": func(f *fetchTest) {
			f.src.reply = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }
			if err := f.bad(fault.Download); !errors.Is(err, ErrNotFound) || f.src.asks.Load() != 1 {
				f.Error(err, f.src.asks.Load())
			}
		},
		"no server": func(f *fetchTest) { f.o.URL = "http://127.0.0.1:1/x"; f.bad(fault.Download) },
		"bad address": func(f *fetchTest) {
			f.o.URL = "http://[::1"
			f.bad(fault.Download)
		},
		"patience": func(f *fetchTest) {
			f.o.Patience, f.o.Attempts = 5*time.Second, 1000
			f.src.reply = func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true }
			f.bad(fault.Download)
		},
		"silent server": func(f *fetchTest) {
			f.o.Idle, f.o.Attempts = 20*time.Millisecond, 2
			f.src.reply = func(n int, w http.ResponseWriter, r *http.Request) bool {
				<-r.Context().Done()
				return true
			}
			if err := f.bad(fault.Download); !strings.Contains(err.Error(), "brings nothing") {
				f.Error(err)
			}
		},
		"no space": func(f *fetchTest) {
			f.o.free = func(string) (int64, error) { return f.o.Size, nil }
			f.bad(fault.NoSpace)
			if f.src.asks.Load() != 0 {
				f.Error("asked though it cannot fit")
			}
		},
		"no space, size from the server": func(f *fetchTest) {
			n := f.o.Size
			f.o.Size = 0
			f.o.free = func(string) (int64, error) { return n, nil }
			f.bad(fault.NoSpace)
		},
		"full device": func(f *fetchTest) {
			f.o.free = func(string) (int64, error) { return 0, errors.New("statfs") }
			f.bad(fault.DiskWrite)
		},
		"no directory": func(f *fetchTest) { f.o.Dest = "/nonexistent/x"; f.bad(fault.DiskWrite) },
		"bad readback": func(f *fetchTest) {
			f.o.ReadBack = func(string) (io.ReadCloser, error) {
				d := bytes.Clone(f.src.data)
				d[1000] ^= 1
				return io.NopCloser(bytes.NewReader(d)), nil
			}
			f.bad(fault.ReadBack)
		},
		"longer readback": func(f *fetchTest) {
			f.o.ReadBack = func(string) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(f.src.data), strings.NewReader("x"))), nil
			}
			f.bad(fault.ReadBack)
		},
		"unreadable": func(f *fetchTest) {
			f.o.ReadBack = func(string) (io.ReadCloser, error) { return nil, errors.New("input/output error") }
			f.bad(fault.ReadBack)
		},
		"wrong range": func(f *fetchTest) {
			f.src.reply = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 2 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-9/%d", len(f.src.data)))
					w.WriteHeader(206)
					w.Write([]byte("hello"))
					return true
				}
				return false
			}
			f.src.cut = func(n int) int {
				if n == 1 {
					return 1 << 20
				}
				return -1
			}
			f.good()
		},
	} {
		t.Run(name, func(t *testing.T) { test(newFetch(t)) })
	}
}

func TestFetchCancelled(t *testing.T) {
	f := newFetch(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.o.Progress = func(int64, int64) { cancel() }
	f.src.cut = func(int) int { return 1 << 20 }
	if _, err := Fetch(ctx, f.o); !errors.Is(err, context.Canceled) || fault.Of(err) != fault.Download {
		t.Error(err)
	}
	f.clean()
}

// TestFetchENOSPC checks the error of a full device. /dev/full is always full.
func TestFetchENOSPC(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	_, err = full.WriteAt([]byte("x"), 0)
	if diskFault(err) != fault.NoSpace {
		t.Error(err)
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/100")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, s string) {
		if from, total, ok := contentRange(s); ok && (from < 0 || total < 0) {
			t.Error(from, total)
		}
	})
}
