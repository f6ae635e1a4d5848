package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/machine"
	"gprovision/unit/state"
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

// archive is a tar of one file, behind an imgmeta.json unless meta is empty.
func archive(t *testing.T, meta string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, text string }{{release.MetaPath, meta}, {"release", strings.Repeat("release ", 100_000)}} {
		if f.text == "" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: os.Geteuid(), Gid: os.Getegid(), Size: int64(len(f.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestProve(t *testing.T) {
	f := newFixture(t)
	good := xz(t, archive(t, ""))
	named := func(n string) []byte {
		return xz(t, archive(t, fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":800000}`, prefix+n)))
	}
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
		{"as old as the policy allows", good, "same", policy.Policy{OldestBuild: "2026-11-12.1"}, own, nil},
		{"the name of imgmeta.json", named("2026-11-13.0001"), "same", strict, own, nil},
		{"another name in imgmeta.json", named("2026-11-13.0001"), "same", strict, own, fault.ImageName},
		{"another name in imgmeta.json, not signed, allowed", named("2026-11-13.0001"), "", loose, own, fault.ImageName},
		{"bad imgmeta.json", xz(t, archive(t, "{")), "same", strict, own, fault.ImageCorrupt},
		{"no tar", xz(t, bytes.Repeat([]byte("release "), 100_000)), "same", strict, own, fault.ImageCorrupt},
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
		old, err := layout.ForMain(fw, layout.Device{Size: 8 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := layout.ForMain(fw, layout.Device{Size: 16 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
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

// TestAdaptTrustsNoRecord: identifiers that cannot be right are made anew.
func TestAdaptTrustsNoRecord(t *testing.T) {
	n := 0
	ids := layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
	device := layout.Device{Size: 8 * layout.GiB, SectorSize: 512}
	for _, tc := range []struct {
		name   string
		fw     layout.Firmware
		change func(r, other *layout.Table)
	}{
		{"the same identifier twice", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[0].UUID = r.Partitions[1].UUID }},
		{"that of the recovery volume", layout.UEFI, func(r, o *layout.Table) { r.Partitions[1].UUID = o.Partitions[1].UUID }},
		{"the filesystem of the recovery volume", layout.BIOS, func(r, o *layout.Table) { r.Partitions[0].FSUUID = o.Partitions[0].FSUUID }},
		{"no filesystem identifier", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[1].FSUUID = "" }},
		{"that of a FAT for ext4", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[1].FSUUID = r.Partitions[0].FSUUID }},
		{"not of this MBR", layout.BIOS, func(r, _ *layout.Table) { r.Partitions[0].UUID = "ffffffff-01" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lay := func() layout.Table {
				table, err := layout.ForMain(tc.fw, device, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
				if err != nil {
					t.Fatal(err)
				}
				return table
			}
			recorded, fresh, other := lay(), lay(), lay()
			tc.change(&recorded, &other)
			if got := Adapt(recorded, fresh, other); !reflect.DeepEqual(got, fresh) {
				t.Errorf("got %+v, want the fresh identifiers", got)
			}
		})
	}
}

func images(t *testing.T, versions ...string) []Image {
	t.Helper()
	var out []Image
	for _, v := range versions {
		n, err := release.ParseName(prefix+v+".upd", prefix)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Image{Name: n})
	}
	return out
}

func versions(im []Image) string {
	var s []string
	for _, i := range im {
		s = append(s, i.Name.Version())
	}
	return strings.Join(s, " ")
}

func TestOrder(t *testing.T) {
	all := images(t, "2026-04-01.0001", "2026-03-01.0001", "2026-02-01.0001")
	var worn release.History
	for range release.MaxFailures + 1 {
		worn.Imaging(all[0].Name.String(), false, time.Unix(0, 0))
	}
	for _, tc := range []struct {
		first   string
		history release.History
		want    string
		found   bool
	}{
		{"", release.History{}, "2026-04-01.0001 2026-03-01.0001 2026-02-01.0001", false},
		{"", worn, "2026-03-01.0001 2026-02-01.0001 2026-04-01.0001", false},
		{prefix + "2026-02-01.0001.upd", release.History{}, "2026-02-01.0001 2026-04-01.0001 2026-03-01.0001", true},
		{prefix + "2026-04-01.0001.upd", worn, "2026-04-01.0001 2026-03-01.0001 2026-02-01.0001", true},
		{prefix + "2020-04-01.0001.upd", worn, "2026-03-01.0001 2026-02-01.0001 2026-04-01.0001", false},
	} {
		got, found := order(all, tc.first, tc.history)
		if versions(got) != tc.want || found != tc.found {
			t.Errorf("first %q: got %s, %t, want %s", tc.first, versions(got), found, tc.want)
		}
	}
}

// TestSurplus: the original is kept by name and not by age, and the image that was just restored always.
func TestSurplus(t *testing.T) {
	all := images(t, "2026-06-01.0001", "2026-05-01.0001", "2026-04-01.0001", "2026-03-01.0001", "2026-02-01.0001")
	for _, tc := range []struct{ running, original, want string }{
		{"2026-06-01.0001", "2026-02-01.0001", "2026-04-01.0001 2026-03-01.0001"},
		{"2026-06-01.0001", "2026-03-01.0001", "2026-04-01.0001"},
		{"2026-03-01.0001", "2026-04-01.0001", ""},
		{"2026-06-01.0001", "", "2026-04-01.0001 2026-03-01.0001"},
	} {
		name := func(v string) string {
			if v == "" {
				return ""
			}
			return prefix + v + ".upd"
		}
		if got := versions(Surplus(all, name(tc.running), name(tc.original), 2)); got != tc.want {
			t.Errorf("running %s, original %s: may go: %q, want %q", tc.running, tc.original, got, tc.want)
		}
	}
}

// TestHostileSignature: what lies beside an image may be anything. Nothing is waited for, and no link leads outside.
func TestHostileSignature(t *testing.T) {
	f := newFixture(t)
	content := xz(t, []byte("release"))
	for i, make := range []func(path string) error{
		func(p string) error { return syscall.Mkfifo(p, 0o600) },
		func(p string) error { return os.Symlink("/dev/zero", p) },
		func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), signature.MaxSize+1), 0o600) },
	} {
		im := f.put(t, fmt.Sprintf("%s2026-11-%02d.0001.upd", prefix, i+1), "", content)
		if err := make(im.Path + signature.Suffix); err != nil {
			t.Fatal(err)
		}
		if err := Prove(t.Context(), im, policy.Policy{}, []signature.PublicKey{f.key.Public()}, nil); fault.Of(err) != fault.ImageCorrupt {
			t.Errorf("case %d: got %v, want ImageCorrupt", i, err)
		}
	}
}

// TestStepsDestroyLate holds the order that power cuts depend on: what can fail without a write comes before the mark is cleared,
// the mark comes after everything, and the request goes last.
func TestStepsDestroyLate(t *testing.T) {
	at := map[string]int{}
	steps := (&job{}).steps()
	for i, s := range steps {
		at[s.Name] = i + 1
	}
	for _, pair := range [][2]string{
		{"check-image", "choose-disk"}, {"choose-disk", "note-request"}, {"note-request", "clear-mark"}, {"clear-mark", "partition-main"},
		{"configure", "boot-main"}, {"boot-main", "update-recovery"}, {"update-recovery", "set-mark"}, {"prune-images", "set-mark"},
		{"boot-entries", "set-mark"}, {"set-mark", "clear-request"},
	} {
		if at[pair[0]] == 0 || at[pair[1]] == 0 || at[pair[0]] > at[pair[1]] {
			t.Errorf("%s must come before %s: %v", pair[0], pair[1], at)
		}
	}
	if at["clear-request"] != len(steps) {
		t.Error("the request is not the last thing that goes")
	}
}

func TestBadImageAndBadDisk(t *testing.T) {
	if !badImage(classify(io.ErrUnexpectedEOF)) {
		t.Error("a stream that ends early does not count as a bad image")
	}
	if badImage(classify(fmt.Errorf("write file: %w", os.ErrDeadlineExceeded))) == badImage(classify(fmt.Errorf("x: %w", syscall.EIO))) {
		t.Error("a disk error counts as a bad image")
	}
	if got := fault.Of(classify(fmt.Errorf("write: %w", syscall.ENOSPC))); got != fault.DiskTooSmall {
		t.Errorf("a full disk is %v", got)
	}
}

// TestFullVolume: a unit is restored although the recovery volume has no room for the request.
func TestFullVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("a filesystem of a fixed size needs root")
		}
		t.Skip("a filesystem of a fixed size needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r := state.Request{Version: state.Version, ID: "0123456789abcdef", Kind: state.KindRestore, Image: "A.B.C.2026-11-22.0001.upd", By: "a medium", Time: time.Now()}
	for _, c := range []struct {
		request *state.Request
		image   *Image
	}{{&r, &Image{}}, {nil, nil}} {
		j := &job{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler)}, Options: Options{Volume: state.Open(dir), Request: c.request, Image: c.image}, disks: []target{{}}}
		j.Unit.Main = []state.Disk{machine.DiskRecord(block.Disk{}, layout.Table{})}
		if err := j.noteRequest(t.Context()); err != nil || c.request != nil && j.request.ID != r.ID || j.request.ID == "" {
			t.Errorf("got %v, request %q", err, j.request.ID)
		}
	}
}
