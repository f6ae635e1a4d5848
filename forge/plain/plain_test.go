package plain

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTools reads what the tools themselves write.
func TestTools(t *testing.T) {
	want := []byte(strings.Repeat("some text that is compressed well\n", 100_000))
	for _, command := range []string{"cat", "xz", "gzip", "zstd", "zstd --long=30", "pzstd -c", "xz --check=crc32", "gzip -1; echo more | gzip", "bzip2"} {
		t.Run(command, func(t *testing.T) {
			program, _, _ := strings.Cut(command, " ")
			if _, err := exec.LookPath(strings.TrimSuffix(program, ";")); err != nil {
				if os.Getenv("GPROV_NO_SKIP") == "1" {
					t.Fatalf("program %s is missing", program)
				}
				t.Skipf("program %s is missing", program)
			}
			cmd := exec.Command("sh", "-c", command)
			cmd.Stdin = bytes.NewReader(want)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(command, "pzstd") && bytes.HasPrefix(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
				t.Fatal("pzstd no longer begins with a frame to be skipped: this shows nothing")
			}
			want := want
			if strings.Contains(command, "more") {
				want = append(bytes.Clone(want), "more\n"...)
			}
			r, err := NewReader(bufio.NewReader(bytes.NewReader(packed)))
			if command == "bzip2" {
				if !errors.Is(err, ErrFormat) {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
		})
	}
}

func TestShort(t *testing.T) {
	for _, b := range []string{"", "x", "\x1f\x8b", "\xfd7zXZ\x00", "BZh", "\x28\xb5\x2f\xfd"} {
		r, err := NewReader(bufio.NewReader(strings.NewReader(b)))
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(r); err == nil && string(got) != b {
			t.Errorf("%q: %q", b, got)
		}
		r.Close()
	}
}
