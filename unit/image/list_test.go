package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/keytest"
)

func TestProve(t *testing.T) {
	f := imagetest.New(t)
	good := imagetest.XZ(t, imagetest.Tar(t, ""))
	named := func(n string) []byte {
		return imagetest.XZ(t, imagetest.Tar(t, fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":800000}`, imagetest.Prefix+n)))
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	strict, loose := policy.Policy{}, policy.Policy{AllowUnsigned: true}
	other := keytest.New(t)
	own := []signature.PublicKey{f.Key.Public()}
	base := func(n int) string { return fmt.Sprintf("%s2026-11-%02d.0001", imagetest.Prefix, n) }
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
		{"old signed image under a new name", good, imagetest.Prefix + "2020-01-01.0001", strict, own, fault.ImageSignature},
		{"old signed image under a new name, policy allows unsigned", good, imagetest.Prefix + "2020-01-01.0001", loose, own, fault.ImageSignature},
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
		{"bad imgmeta.json", imagetest.XZ(t, imagetest.Tar(t, "{")), "same", strict, own, fault.ImageCorrupt},
		{"no tar", imagetest.XZ(t, bytes.Repeat([]byte("release "), 100_000)), "same", strict, own, fault.ImageCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			as := tc.signedAs
			if as == "same" {
				as = base(i + 1)
			}
			im := f.Put(t, base(i+1)+".upd", as, tc.content)
			err := image.Prove(t.Context(), im, tc.policy, tc.keys, func(int64) {})
			if fault.Of(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	// A signature over other bytes.
	im := f.Put(t, base(28)+".upd", base(28), good)
	if err := os.WriteFile(im.Path, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := image.Prove(t.Context(), im, strict, own, nil); fault.Of(err) != fault.ImageSignature {
		t.Errorf("flipped bit in a signed image: got %v", err)
	}
}

func TestListImages(t *testing.T) {
	f := imagetest.New(t)
	for _, n := range []string{"2026-02-01.9", "2026-02-01.10", "2025-12-31.0500"} {
		f.Put(t, imagetest.Prefix+n+".upd", "", nil)
	}
	for _, n := range []string{"OTHER.LNX.SHINY.2026-02-01.1.upd", imagetest.Prefix + "2026-02-30.1.upd", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(f.Dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(f.Dir, imagetest.Prefix+"2030-01-01.1.upd")); err != nil {
		t.Fatal(err)
	}
	for _, oldest := range []bool{false, true} {
		images, bad, err := image.List(f.Dir, imagetest.Prefix, oldest)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, im := range images {
			got = append(got, strings.TrimSuffix(strings.TrimPrefix(im.Name.String(), imagetest.Prefix), ".upd"))
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
	if images, _, err := image.List(filepath.Join(f.Dir, "missing"), imagetest.Prefix, false); err != nil || len(images) != 0 {
		t.Errorf("a missing directory gives %v, %v", images, err)
	}
}

func images(t *testing.T, versions ...string) []image.Image {
	t.Helper()
	var out []image.Image
	for _, v := range versions {
		n, err := release.ParseName(imagetest.Prefix+v+".upd", imagetest.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, image.Image{Name: n})
	}
	return out
}

func versions(im []image.Image) string {
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
		{imagetest.Prefix + "2026-02-01.0001.upd", release.History{}, "2026-02-01.0001 2026-04-01.0001 2026-03-01.0001", true},
		{imagetest.Prefix + "2026-04-01.0001.upd", worn, "2026-04-01.0001 2026-03-01.0001 2026-02-01.0001", true},
		{imagetest.Prefix + "2020-04-01.0001.upd", worn, "2026-03-01.0001 2026-02-01.0001 2026-04-01.0001", false},
	} {
		got, found := image.Order(all, tc.first, tc.history)
		if versions(got) != tc.want || found != tc.found {
			t.Errorf("first %q: got %s, %t, want %s", tc.first, versions(got), found, tc.want)
		}
	}
}

// TestSurplus: the original is kept by name, not by age. The image just restored is always kept.
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
			return imagetest.Prefix + v + ".upd"
		}
		if got := versions(image.Surplus(all, name(tc.running), name(tc.original), 2)); got != tc.want {
			t.Errorf("running %s, original %s: may go: %q, want %q", tc.running, tc.original, got, tc.want)
		}
	}
}

// TestHostileSignature: anything may lie beside an image. Nothing blocks, and no link leads outside.
func TestHostileSignature(t *testing.T) {
	f := imagetest.New(t)
	content := imagetest.XZ(t, []byte("release"))
	for i, make := range []func(path string) error{
		func(p string) error { return syscall.Mkfifo(p, 0o600) },
		func(p string) error { return os.Symlink("/dev/zero", p) },
		func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), signature.MaxSize+1), 0o600) },
	} {
		im := f.Put(t, fmt.Sprintf("%s2026-11-%02d.0001.upd", imagetest.Prefix, i+1), "", content)
		if err := make(im.Path + signature.Suffix); err != nil {
			t.Fatal(err)
		}
		if err := image.Prove(t.Context(), im, policy.Policy{}, []signature.PublicKey{f.Key.Public()}, nil); fault.Of(err) != fault.ImageCorrupt {
			t.Errorf("case %d: got %v, want ImageCorrupt", i, err)
		}
	}
}

// TestLimit unpacks an image that holds more than its imgmeta.json says, as a restore does.
func TestLimit(t *testing.T) {
	for _, c := range []struct {
		name, meta string
		bad        bool
	}{
		{"as it says", `{"version":1,"name":"` + imagetest.Prefix + `2026-11-01.0001","build":1,"bytes":4000000}`, false},
		{"more than it says", `{"version":1,"name":"` + imagetest.Prefix + `2026-11-01.0001","build":1,"bytes":1}`, true},
		{"less than nothing", `{"version":1,"name":"` + imagetest.Prefix + `2026-11-01.0001","build":1,"bytes":-9}`, true},
		{"the original's", `{"BinVer":"1"}`, false},
		{"none", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, err := release.ParseName(imagetest.Prefix+"2026-11-01.0001.upd", imagetest.Prefix)
			if err != nil {
				t.Fatal(err)
			}
			plain := imagetest.Tar(t, c.meta)
			file := filepath.Join(t.TempDir(), name.String())
			b := imagetest.XZ(t, append(plain[:len(plain)-1024:len(plain)-1024], imagetest.Tar(t, strings.Repeat(" ", 1<<21))...))
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			most, err := image.Limit(t.Context(), f, image.Image{Path: file, Name: name, Size: int64(len(b))})
			if err != nil {
				t.Fatal(err)
			}
			r, err := release.NewReader(context.Background(), f, int64(len(b)), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err = filesystem.Unpack(t.Context(), t.TempDir(), r, filesystem.UnpackOptions{MaxBytes: most}); (err != nil) != c.bad {
				t.Errorf("limit %d: %v", most, err)
			}
		})
	}
}

// TestGoBack: which image is the previous good one.
func TestGoBack(t *testing.T) {
	name := func(n uint64) release.Name {
		return release.Name{Prefix: "A.B.C.", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Build: n}
	}
	images := []release.Name{name(4), name(3), name(2), name(1)}
	var h release.History
	now := time.Unix(0, 0)
	if got := image.GoBack(images, h, name(3).Base()); got != name(2).String() {
		t.Errorf("without a history: %q, want the next older one", got)
	}
	if got := image.GoBack(images, h, name(1).Base()); got != "" {
		t.Errorf("from the oldest: %q", got)
	}
	if got := image.GoBack(images, h, "unknown"); got != "" {
		t.Errorf("from an image that is not there: %q", got)
	}
	h.Boot(name(1).Base(), true, 0, now, "")
	h.Boot(name(3).Base(), true, 0, now, "")
	if got := image.GoBack(images, h, name(3).Base()); got != name(1).String() {
		t.Errorf("got %q, want the one that started well", got)
	}
	h.Boot(name(4).Base(), true, 0, now, "")
	if got := image.GoBack(images, h, name(3).Base()); got != name(4).String() {
		t.Errorf("got %q, want the one that was used last", got)
	}
	for _, n := range []uint64{1, 2, 4} {
		h.Boot(name(n).Base(), false, release.MaxFailures+1, now, "")
	}
	if got := image.GoBack(images, h, name(3).Base()); got != "" {
		t.Errorf("got %q, though all failed too often", got)
	}
}
