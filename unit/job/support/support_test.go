package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/unit/state"
)

// read returns the files of a bundle.
func read(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(text)
	}
}

func TestWrite(t *testing.T) {
	v := state.Open(t.TempDir())
	const hash = "$2b$10$abcdefghijklmnopqrstuv"
	key := state.NewKey()
	seed := base64.StdEncoding.EncodeToString(key.Seed())
	err := errors.Join(v.WriteHash(hash), v.WriteKey(key), v.WriteCounts(state.Counts{Restores: 7}), v.WriteHistory([]byte("{}")),
		os.MkdirAll(v.Path("Image"), 0o755), os.WriteFile(v.Path("Image/A.upd"), []byte("12345"), 0o600),
		os.WriteFile(v.Path("log/recov1.log"), []byte(`{"msg":"key `+seed+` of the unit"}
{"msg":"run","cmd":"tool enrol=abcdef0123 mfgurl=http://joe:pw123@10.0.0.1/x","password":"hunter2","hash":"$6$salt$0123456789abcdef"}
`), 0o600),
		os.WriteFile(v.Path("log/huge.log"), make([]byte, maxFile+1), 0o600),
		os.Mkdir(v.Path("log/old.log"), 0o700), os.WriteFile(v.Path("log/notes.txt"), nil, 0o600),
		os.Symlink("/etc/passwd", v.Path("log/link.log")))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = Write(t.Context(), &out, Options{
		Volume: v, Now: time.Unix(1800000000, 0), By: "test",
		Sys:   fstest.MapFS{"class/dmi/id/product_name": {Data: []byte("Box\n")}},
		Proc:  fstest.MapFS{"cmdline": {Data: []byte("quiet enrol=abcdef0123\n")}, "version": {Data: []byte("Linux\n")}},
		Files: []File{{"journal.txt", []byte("Authorization: Bearer aaaabbbbcccc\n-----BEGIN PRIVATE KEY-----\nMIIBVg\n-----END PRIVATE KEY-----\nend\n")}, {"../x", nil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	files := read(t, out.Bytes())
	for name, want := range map[string]string{
		"support/recovery/state/count.json":          `"restores":7`,
		"support/recovery/log/recovery_history.json": "{}",
		"support/recovery/log/recov1.log":            `"msg":"run","cmd":"tool enrol=[secret] mfgurl=http://[secret]10.0.0.1/x"`,
		"support/images.txt":                         `"A.upd"`,
		"support/capture.txt":                        "Box",
		"support/proc/cmdline":                       "quiet enrol=[secret]\n",
		"support/journal.txt":                        "PRIVATE KEY-----[secret]\nend\n",
		"support/index.json":                         "huge.log",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q has no %q", name, files[name], want)
		}
	}
	var i index
	if err := json.Unmarshal([]byte(files["support/index.json"]), &i); err != nil || i.Version != 1 || i.By != "test" || len(i.Files) != len(files)-1 {
		t.Errorf("index: %+v, %v", i, err)
	}
	if len(i.Missing) != 2 || !strings.Contains(i.Missing[0], "huge.log") || !strings.Contains(i.Missing[1], `"../x": not a name`) {
		t.Errorf("missing: %q", i.Missing)
	}
	for name, text := range files {
		for _, s := range []string{hash, seed, "abcdef0123", "pw123", "hunter2", "$6$", "aaaabbbb", "MIIBVg", "root:x"} {
			if strings.Contains(text, s) {
				t.Errorf("%s has the secret %q", name, s)
			}
		}
		if strings.Contains(name, "admin.hash") || strings.Contains(name, "unit.key") || strings.Contains(name, "notes.txt") || strings.Contains(name, "..") {
			t.Errorf("%s is in the bundle", name)
		}
	}
}

// sick is an empty file system with one directory that cannot be read.
type sick struct{ dir string }

func (s sick) Open(name string) (fs.File, error) {
	if name == s.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	return fstest.MapFS{}.Open(name)
}

// TestIncomplete: what a bundle lacks is said in its index, with what the caller lacked before, and the rest is there.
func TestIncomplete(t *testing.T) {
	damaged := state.Open(t.TempDir())
	err := errors.Join(damaged.WriteCounts(state.Counts{Restores: 7}), os.RemoveAll(damaged.Path(state.LogDir)),
		os.WriteFile(damaged.Path(state.LogDir), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want []string
		has  string
	}{
		"no volume":        {Options{}, []string{"journal: none", "the recovery volume is not there"}, "a"},
		"the volume fails": {Options{Volume: state.Open("/nowhere")}, []string{"journal: none", "recovery volume: open /nowhere: "}, "a"},
		"a damaged volume": {Options{Volume: damaged}, []string{"journal: none", "logs: ", "images: "}, "recovery/state/count.json"},
		"a fresh volume":   {Options{Volume: state.Open(t.TempDir())}, []string{"journal: none", "images: "}, "a"},
		"no /proc":         {Options{Sys: sick{}}, []string{"journal: none", "the recovery volume is not there"}, "a"},
		"no /sys":          {Options{Proc: sick{}}, []string{"journal: none", "the recovery volume is not there"}, "a"},
		"/sys fails in part": {Options{Sys: sick{"class/dmi/id"}, Proc: sick{}}, []string{"journal: none", "the recovery volume is not there",
			"/sys/class/dmi/id cannot be read"}, "capture.txt"},
		"/sys fails": {Options{Sys: sick{"block"}, Proc: sick{}}, []string{"journal: none", "the recovery volume is not there",
			"inventory: capture: "}, "a"},
	} {
		c.o.Missing, c.o.Files, c.o.Now = []string{"journal: none"}, []File{{"a", nil}}, time.Now()
		var out bytes.Buffer
		if err := Write(t.Context(), &out, c.o); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		files := read(t, out.Bytes())
		var i index
		if err := json.Unmarshal([]byte(files["support/index.json"]), &i); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.EqualFunc(i.Missing, c.want, strings.HasPrefix) {
			t.Errorf("%s: missing are %q, want %q", name, i.Missing, c.want)
		}
		if _, ok := files["support/"+c.has]; !ok {
			t.Errorf("%s: %s is not in the bundle", name, c.has)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestUnwritten: a bundle that is not written whole is an error.
func TestUnwritten(t *testing.T) {
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(stopped, io.Discard, Options{Files: []File{{"a", nil}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if err := Write(t.Context(), full{}, Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
}

// TestBounds: a file that is too large, or has no name, is left out and said to be missing, and the others are there.
func TestBounds(t *testing.T) {
	b := bundle{ctx: t.Context(), clean: newCleaner(nil), now: time.Now(), tar: tar.NewWriter(io.Discard)}
	b.add("../x", []byte("x"))
	b.add("large", make([]byte, maxFile+1))
	b.add("full", make([]byte, maxFile))
	if b.all != maxFile {
		t.Errorf("%d bytes are in the bundle", b.all)
	}
	b.all = maxAll - 2
	b.add("more", []byte("123"))
	b.add("rest", []byte("12"))
	b.add("last", []byte("1"))
	if b.err != nil {
		t.Fatal(b.err)
	}
	if want := []entry{{"full", maxFile}, {"rest", 2}}; !slices.Equal(b.index.Files, want) {
		t.Errorf("in the bundle are %v, want %v", b.index.Files, want)
	}
	missing := strings.Join(b.index.Missing, "\n")
	for _, name := range []string{"../x", "large", "more", "last"} {
		if !strings.Contains(missing, name) {
			t.Errorf("nothing says that %s is missing: %s", name, missing)
		}
	}
}

func TestName(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for serial, want := range map[string]string{"SN-1": "support-SN-1-20261122T100000Z.tar.gz", "": "support-unknown-20261122T100000Z.tar.gz", "a/../b": "support-a____b-20261122T100000Z.tar.gz",
		"azAZ09-`{@[/:": "support-azAZ09-______-20261122T100000Z.tar.gz"} {
		if got := Name(serial, at); got != want {
			t.Errorf("%q: got %s, want %s", serial, got, want)
		}
	}
}
