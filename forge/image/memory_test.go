package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"gprovision/forge/tool"
)

// TestMemory checks images on two cores, in a process of its own: one of 4 GiB in the blocks that the builder makes, and one of 1 GiB in
// blocks of 256 MiB with the largest dictionary. And it extracts one. It may never hold more than 256 MiB.
func TestMemory(t *testing.T) {
	const most = 256 << 10 // KiB, as the kernel counts
	if file, ok := os.LookupEnv("GPROV_TEST_MEMORY"); ok {
		into := os.Getenv("GPROV_TEST_INTO")
		var err error
		if into == "" {
			_, err = Verify(context.Background(), file, CheckOptions{})
		} else {
			_, err = Extract(context.Background(), file, into, CheckOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s\n", regexp.MustCompile(`VmHWM:.*`).Find(b))
		return
	}
	if testing.Short() {
		t.Skip("decodes 5 GiB: not with -short")
	}
	needs(t, false, "xz")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 64<<20)
	rnd := rand.New(rand.NewSource(1))
	for at := 0; at < len(part); at += 4096 {
		rnd.Read(part[at : at+100])
	}
	dir := t.TempDir()
	for i, c := range []struct {
		what    string
		per     int // parts in a stream
		streams int
		extract bool
		args    []string
	}{
		{"4 GiB", 1, 64, false, []string{"-T2", "--block-size=8MiB", "--lzma2=preset=0,dict=8MiB"}},
		{"1 GiB in large blocks", 4, 4, false, []string{"-T1", "--lzma2=preset=0,dict=64MiB"}},
		{"512 MiB into files", 1, 8, true, []string{"-T2", "--block-size=8MiB", "--lzma2=preset=0,dict=8MiB"}},
	} {
		compress := func(in ...[]byte) []byte {
			t.Helper()
			var readers []io.Reader
			for _, b := range in {
				readers = append(readers, bytes.NewReader(b))
			}
			out, err := tool.Output(t.Context(), nil, tool.Command{Name: "xz", Args: append([]string{"-c", "--check=sha256"}, c.args...), Stdin: io.MultiReader(readers...)})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		var head bytes.Buffer
		if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(c.per*c.streams) * int64(len(part))}); err != nil {
			t.Fatal(err)
		}
		parts := make([][]byte, c.per)
		for i := range parts {
			parts[i] = part
		}
		file := filepath.Join(dir, name(t, i+1).String())
		content := append(compress(head.Bytes()), bytes.Repeat(compress(parts...), c.streams)...)
		if err := os.WriteFile(file, append(content, compress(make([]byte, 1024))...), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestMemory$", "-test.v")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "GPROV_TEST_MEMORY="+file)
		if c.extract {
			cmd.Env = append(cmd.Env, "GPROV_TEST_INTO="+filepath.Join(dir, "into"))
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.what, err, out)
		}
		m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("%s: no peak in %s", c.what, out)
		}
		peak, err := strconv.Atoi(string(m[1]))
		if err != nil || peak > most {
			t.Errorf("%s: %d KiB resident, want at most %d, %v", c.what, peak, most, err)
		}
		t.Logf("%s: %d MiB resident", c.what, peak>>10)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
