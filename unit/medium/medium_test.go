package medium

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
)

const prefix = "WIDGET.LNX.SHINY."

// xzHead is what a glance looks at: a stream header with SHA-256 (xz-file-format.txt, 2.1.1).
var xzHead = []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 10, 0xe1, 0xfb, 0x0c, 0xa1}

type stick struct {
	t   *testing.T
	dir string
	key signature.PrivateKey
}

func newStick(t *testing.T) stick {
	t.Helper()
	key := keytest.New(t)
	return stick{t, t.TempDir(), key}
}

func (s stick) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// image writes an image, signed by key as signedAs.
func (s stick) image(base, signedAs string, key signature.PrivateKey) {
	s.t.Helper()
	content := append(bytes.Clone(xzHead), base...)
	s.write(base, content)
	sig, err := key.Sign(bytes.NewReader(content), signature.ImageComment(signedAs))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(base+signature.Suffix, sig)
}

func TestScan(t *testing.T) {
	s, other := newStick(t), newStick(t)
	old, fresh, third := prefix+"2026-11-21.0001.upd", prefix+"2026-11-22.0001.upd", prefix+"2026-11-23.0001.upd"
	s.image(layout.EmergencyPrefix+old, old, s.key)
	s.image(layout.EmergencyPrefix+"_"+fresh, fresh, s.key)
	s.image(third, third, s.key) // without the prefix: a file of the person's own
	s.image(layout.EmergencyPrefix+prefix+"2026-11-24.0001.upd", old, s.key)
	s.image(layout.EmergencyPrefix+prefix+"2026-11-25.0001.upd", prefix+"2026-11-25.0001.upd", other.key)
	s.image(layout.EmergencyPrefix+"OTHER.LNX.SHINY.2026-11-25.0001.upd", "OTHER.LNX.SHINY.2026-11-25.0001.upd", s.key)
	s.write(layout.EmergencyPrefix+prefix+"2026-11-26.0001.upd", xzHead)
	s.write(layout.EmergencyPrefix+prefix+"2026-11-27.0001.upd", []byte("text and no image at all"))
	s.write(layout.EmergencyPrefix+"command.json", []byte("{}"))
	if err := os.Mkdir(filepath.Join(s.dir, layout.EmergencyPrefix+prefix+"2026-11-28.0001.upd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(s.dir, layout.EmergencyPrefix+prefix+"2026-11-29.0001.upd")); err != nil {
		t.Fatal(err)
	}
	keys := []signature.PublicKey{s.key.Public()}
	files, refused, err := Scan(s.dir, "1234-ABCD", prefix, policy.Policy{}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || files[0].Base != layout.EmergencyPrefix+"_"+fresh || files[1].Base != layout.EmergencyPrefix+old ||
		files[0].Name.String() != fresh {
		t.Fatalf("files %+v", files)
	}
	if im := files[0].Image("/x"); im.Path != "/x/"+layout.EmergencyPrefix+"_"+fresh || im.Size == 0 {
		t.Errorf("image %+v", im)
	}
	want := map[string]*fault.Fault{
		prefix + "2026-11-24.0001.upd":        fault.ImageSignature,
		prefix + "2026-11-25.0001.upd":        fault.ImageSignature,
		"OTHER.LNX.SHINY.2026-11-25.0001.upd": fault.ImageName,
		prefix + "2026-11-26.0001.upd":        fault.ImageUnsigned,
		prefix + "2026-11-27.0001.upd":        fault.ImageCorrupt,
		"command.json":                        fault.ImageName,
		prefix + "2026-11-28.0001.upd":        fault.ImageName,
		prefix + "2026-11-29.0001.upd":        fault.ImageName,
	}
	for _, r := range refused {
		name := strings.TrimPrefix(r.File, layout.EmergencyPrefix)
		if !errors.Is(r.Err, want[name]) {
			t.Errorf("%s is refused with %v, want %v", r.File, r.Err, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not refused: %v", want)
	}

	// The identifier belongs to this image on this medium.
	again, _, err := Scan(s.dir, "1234-ABCD", prefix, policy.Policy{}, keys)
	if err != nil || again[0].ID != files[0].ID || len(files[0].ID) != 32 {
		t.Errorf("identifier %q, then %q, %v", files[0].ID, again[0].ID, err)
	}
	elsewhere, _, err := Scan(s.dir, "1234-ABCE", prefix, policy.Policy{}, keys)
	if err != nil || elsewhere[0].ID == files[0].ID || files[0].ID == files[1].ID {
		t.Errorf("two media or two images have the identifier %q, %v", files[0].ID, err)
	}
	// Try a policy that allows unsigned images, and one that forbids old ones.
	loose, _, err := Scan(s.dir, "", prefix, policy.Policy{AllowUnsigned: true}, keys)
	if err != nil || len(loose) != 3 {
		t.Errorf("%d files, want 3: %v", len(loose), err)
	}
	strict, _, err := Scan(s.dir, "", prefix, policy.Policy{OldestBuild: "2026-11-22.0001"}, keys)
	if err != nil || len(strict) != 1 {
		t.Errorf("%d files, want 1: %v", len(strict), err)
	}
}

func TestScanIsBounded(t *testing.T) {
	s := newStick(t)
	for i := range maxFiles + 10 {
		s.write(layout.EmergencyPrefix+strings.Repeat("x", i+1), nil)
	}
	_, refused, err := Scan(s.dir, "", prefix, policy.Policy{}, nil)
	if err != nil || len(refused) != maxFiles {
		t.Errorf("%d files, want %d: %v", len(refused), maxFiles, err)
	}
	if _, _, err := Scan(filepath.Join(s.dir, "missing"), "", prefix, policy.Policy{}, nil); err == nil {
		t.Error("a directory that is not there was read")
	}
}

// TestWithin uses a medium that never answers, and one whose driver panics.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		defer close(free)
		began := time.Now()
		_, err := withTimeout(t.Context(), patience, func() (int, error) { <-free; return 1, nil })
		if err == nil || time.Since(began) != patience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if _, err := withTimeout(t.Context(), patience, func() (int, error) { panic("driver") }); !errors.Is(err, fault.Internal) {
			t.Errorf("panic gives %v", err)
		}
		if n, err := withTimeout(t.Context(), patience, func() (int, error) { return 7, nil }); n != 7 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := withTimeout(ended, patience, func() (int, error) { <-free; return 1, nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestWhichDisks(t *testing.T) {
	for want, disks := range map[bool][]block.Disk{
		true:  {{Bus: block.USB}, {Bus: block.SCSI, Removable: true}},
		false: {{Bus: block.SATA}, {Bus: block.NVMe}, {Bus: block.VirtIO}, {Bus: block.MMC}},
	} {
		for _, d := range disks {
			if isPluggable(d) != want {
				t.Errorf("%+v: %v", d, !want)
			}
		}
	}
	table := layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{{Number: 1, Type: layout.TypeBIOSBoot}, {Number: 2,
		Type: layout.TypeStick}}}
	if n := stickPartition(table); n != 2 {
		t.Errorf("the stick's partition is %d", n)
	}
	if n := stickPartition(layout.Table{}); n != 0 {
		t.Errorf("no stick, and partition %d", n)
	}
}

func TestCarries(t *testing.T) {
	s := Stick{Table: layout.Table{Partitions: []layout.Partition{{UUID: ""}, {UUID: "a"}, {UUID: "b"}}}}
	for id, want := range map[string]bool{"a": true, "b": true, "c": false, "": false} {
		if s.Carries(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}
