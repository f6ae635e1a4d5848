package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
)

const prefix = "WIDGET.LNX.SHINY."

// xz compresses b as the builder does, or skips: with GPROV_NO_SKIP=1 a missing program is a failure.
func xz(t *testing.T, b []byte) []byte {
	t.Helper()
	cmd := exec.Command("xz", "--check=sha256", "--block-size=65536", "-T2", "-1", "-c")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("the program xz is missing (Debian package xz-utils)")
		}
		t.Skip("the program xz is missing (Debian package xz-utils)")
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type fixture struct {
	dir string
	key signature.PrivateKey
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	key, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return fixture{t.TempDir(), key}
}

// put writes an image, signed under the name signedAs; empty: not signed.
func (f fixture) put(t *testing.T, name, signedAs string, content []byte) Image {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if signedAs != "" {
		sig, err := f.key.Sign(bytes.NewReader(content), signature.ImageComment(signedAs))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+signature.Suffix, sig, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := release.ParseName(name, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return Image{Path: path, Name: n, Size: int64(len(content))}
}

func TestProve(t *testing.T) {
	f := newFixture(t)
	good := xz(t, bytes.Repeat([]byte("release "), 100_000))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	strict, loose := policy.Policy{}, policy.Policy{AllowUnsigned: true}
	other, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	own := []signature.PublicKey{f.key.Public()}
	base := func(n int) string { return fmt.Sprintf("%s2026-11-%02d.0001", prefix, n) }
	for i, tc := range []struct {
		name     string
		content  []byte
		signedAs string // "same": its own name
		policy   policy.Policy
		keys     []signature.PublicKey
		want     *fault.Fault
	}{
		{"signed", good, "same", strict, own, nil},
		{"signed, policy allows unsigned", good, "same", loose, own, nil},
		{"old signed image under a new name", good, prefix + "2020-01-01.0001", strict, own, fault.ImageSignature},
		{"old signed image under a new name, policy allows unsigned", good, prefix + "2020-01-01.0001", loose, own, fault.ImageSignature},
		{"another key", good, "same", strict, []signature.PublicKey{other.Public()}, fault.ImageSignature},
		{"not signed", good, "", strict, own, fault.ImageUnsigned},
		{"not signed, allowed", good, "", loose, own, nil},
		{"flipped bit, not signed, allowed", flipped, "", loose, own, fault.ImageCorrupt},
		{"cut, not signed, allowed", good[:len(good)-100], "", loose, own, fault.ImageCorrupt},
		{"no xz file", []byte("no xz file at all"), "same", strict, own, fault.ImageCorrupt},
		{"older than the policy allows", good, "same", policy.Policy{OldestBuild: "2026-12-01.1"}, own, fault.Policy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			as := tc.signedAs
			if as == "same" {
				as = base(i + 1)
			}
			im := f.put(t, base(i+1)+".upd", as, tc.content)
			err := Prove(t.Context(), im, tc.policy, tc.keys, func(int64) {})
			if fault.Of(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	// A signature over other bytes.
	im := f.put(t, base(28)+".upd", base(28), good)
	if err := os.WriteFile(im.Path, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Prove(t.Context(), im, strict, own, nil); fault.Of(err) != fault.ImageSignature {
		t.Errorf("flipped bit in a signed image: got %v", err)
	}
}

func TestListImages(t *testing.T) {
	f := newFixture(t)
	for _, n := range []string{"2026-02-01.9", "2026-02-01.10", "2025-12-31.0500"} {
		f.put(t, prefix+n+".upd", "", nil)
	}
	for _, n := range []string{"OTHER.LNX.SHINY.2026-02-01.1.upd", prefix + "2026-02-30.1.upd", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(f.dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(f.dir, prefix+"2030-01-01.1.upd")); err != nil {
		t.Fatal(err)
	}
	for _, oldest := range []bool{false, true} {
		images, bad, err := ListImages(f.dir, prefix, oldest)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, im := range images {
			got = append(got, strings.TrimSuffix(strings.TrimPrefix(im.Name.String(), prefix), ".upd"))
		}
		want := "2026-02-01.10 2026-02-01.9 2025-12-31.0500"
		if oldest {
			want = "2025-12-31.0500 2026-02-01.9 2026-02-01.10"
		}
		if strings.Join(got, " ") != want {
			t.Errorf("oldest %v: got %v, want %s", oldest, got, want)
		}
		if len(bad) != 3 {
			t.Errorf("rejected %v, want the foreign prefix, the impossible date and the link", bad)
		}
	}
	if images, _, err := ListImages(filepath.Join(f.dir, "missing"), prefix, false); err != nil || len(images) != 0 {
		t.Errorf("a missing directory gives %v, %v", images, err)
	}
}

func TestAdaptKeepsIdentifiers(t *testing.T) {
	n := 0
	ids := layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		old, err := layout.ForMain(fw, layout.Device{Size: 8 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, ids)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := layout.ForMain(fw, layout.Device{Size: 16 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, ids)
		if err != nil {
			t.Fatal(err)
		}
		got := Adapt(old, fresh, layout.Table{})
		a, b := old.Find(layout.Primary), got.Find(layout.Primary)
		if got.UUID != old.UUID || a.UUID != b.UUID || a.FSUUID != b.FSUUID {
			t.Errorf("%s: identifiers changed: %+v, %+v", fw, old, got)
		}
		if b.Size <= a.Size {
			t.Errorf("%s: the partition does not use the larger disk", fw)
		}
	}
}

func TestBadImageAndBadDisk(t *testing.T) {
	if !badImage(classify(io.ErrUnexpectedEOF)) {
		t.Error("a stream that ends early does not count as a bad image")
	}
	if badImage(classify(fmt.Errorf("write file: %w", os.ErrDeadlineExceeded))) == badImage(classify(fmt.Errorf("x: %w", syscall.EIO))) {
		t.Error("a disk error counts as a bad image")
	}
}
