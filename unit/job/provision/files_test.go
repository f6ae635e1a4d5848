package provision

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// filesPlan is the plan of a manifest with these files.
func filesPlan(t *testing.T, p policy.Policy, files ...manifest.File) Plan {
	t.Helper()
	names := site.Stock().Names
	plan, err := newPlan(&manifest.Manifest{LogEndpoint: "h:1", Files: files, ValidationData: []manifest.Specs{{DevCodeName: "FOX"}}},
		manifest.Rules{Platform: "FOX", Prefix: names.ImagePrefix, BootFile: names.BootFile}, p)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestCheckServer: what shows without a download is found before anything is cleared.
func TestCheckServer(t *testing.T) {
	key, other := keytest.New(t), keytest.New(t)
	stock := site.Stock()
	name := stock.Names.ImagePrefix + "2026-11-22.0001"
	content := []byte("the image")
	sign := func(k signature.PrivateKey, name string) []byte {
		sig, err := k.Sign(bytes.NewReader(content), signature.ImageComment(name))
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	good := sign(key, name)
	for _, tc := range []struct {
		what     string
		size     int64
		sig      []byte // nil: there is none
		missing  bool
		noHead   bool
		unsigned bool
		want     *fault.Fault
	}{
		{what: "all there", size: int64(len(content)), sig: good},
		{what: "size not known", sig: good},
		{what: "a server without HEAD", size: 5, sig: good, noHead: true},
		{what: "missing", sig: good, missing: true, want: fault.Download},
		{what: "another size", size: 5, sig: good, want: fault.DownloadHash},
		{what: "no signature", want: fault.ImageUnsigned},
		{what: "no signature, allowed", unsigned: true},
		{what: "another key", sig: sign(other, name), want: fault.ImageSignature},
		{what: "renamed", sig: sign(key, stock.Names.ImagePrefix+"2020-01-01.0001"), want: fault.ImageSignature},
		{what: "no signature at all", sig: []byte("<html>"), want: fault.ImageSignature},
	} {
		t.Run(tc.what, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/"+name+".upd", func(w http.ResponseWriter, r *http.Request) {
				switch {
				case tc.missing:
					http.NotFound(w, r)
				case tc.noHead && r.Method == http.MethodHead:
					w.WriteHeader(http.StatusMethodNotAllowed)
				default:
					w.Write(content)
				}
			})
			if tc.sig != nil {
				mux.HandleFunc("/"+name+".upd"+signature.Suffix, func(w http.ResponseWriter, r *http.Request) { w.Write(tc.sig) })
			}
			server := httptest.NewServer(mux)
			defer server.Close()
			j := &provisioning{
				Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler), Site: stock, Keys: []signature.PublicKey{key.Public()}},
				plan: filesPlan(t, policy.Policy{AllowUnsigned: tc.unsigned},
					manifest.File{Src: server.URL + "/" + name + ".upd", Size: tc.size, Sha256: sixtyFour}),
			}
			if err := j.lookAtServer(t.Context(), false); fault.Of(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestStepsDestroyLate holds the order that power cuts depend on: nothing is cleared before all checks, and the device boots only
// when the unit's record is on it.
func TestStepsDestroyLate(t *testing.T) {
	at := map[string]int{}
	for i, s := range (&provisioning{}).steps() {
		at[s.Name] = i + 1
	}
	for _, pair := range [][2]string{
		{"permit", "clear-main"}, {"check-hardware", "clear-main"}, {"plan", "clear-main"}, {"check-server", "clear-main"},
		{"clear-main", "partition-recovery"}, {"credentials", "write-record"}, {"write-record", "boot-recovery"},
		{"boot-recovery", "boot-entries"}, {"boot-entries", "report"},
	} {
		if at[pair[0]] == 0 || at[pair[1]] == 0 || at[pair[0]] > at[pair[1]] {
			t.Errorf("%s must come before %s: %v", pair[0], pair[1], at)
		}
	}
}

// TestRehearse reads files that are not what the manifest says: each is found out before anything is erased.
func TestRehearse(t *testing.T) {
	content := []byte("the content of a file")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			w.Write(content)
		case "/cut":
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			if r.Method == http.MethodGet {
				w.Write(content[:5])
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	good, err := manifest.Measure(manifest.File{Src: srv.URL + "/good"}, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	cut, missing, wrong := good, good, good
	cut.Src, missing.Src = srv.URL+"/cut", srv.URL+"/missing"
	wrong.Sha256 = strings.Repeat("0", 64)
	for _, tc := range []struct {
		name string
		file manifest.File
		want *fault.Fault
	}{{"good", good, nil}, {"cut", cut, fault.DownloadTruncated}, {"missing", missing, fault.Download}, {"wrong hash", wrong, fault.DownloadHash}} {
		for _, free := range []int{0, 1000} { // read to its end, or kept in memory
			if free > 0 && tc.file.Src == cut.Src {
				continue // that is tried again and again
			}
			j, _ := testJob(t, policy.Policy{})
			j.Panel, j.plan = panel.New(), filesPlan(t, policy.Policy{}, tc.file)
			j.Proc = fstest.MapFS{"meminfo": {Data: fmt.Appendf(nil, "MemAvailable: %d kB\n", free<<10)}}
			if err := j.lookAtServer(t.Context(), true); fault.Of(err) != tc.want {
				t.Errorf("%s, %d MiB free: got %v, want %v", tc.name, free, err, tc.want)
			}
			if kept := j.plan.Files[0].kept != ""; kept != (free > 0 && tc.want == nil) {
				t.Errorf("%s, %d MiB free: kept %t", tc.name, free, kept)
			}
			j.letGo()
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
				t.Errorf("%s: what was fetched stays: %v, %v", tc.name, left, err)
			}
		}
	}
}

// TestArtifactSignature: the boot artifact may have a signature of its own, and one that is there must hold.
func TestArtifactSignature(t *testing.T) {
	key, other := keytest.New(t), keytest.New(t)
	b := imagetest.BzImage(7, "")
	stock := site.Stock()
	for _, tc := range []struct {
		what string
		sig  string // "": there is none
		keys []signature.PublicKey
		want *fault.Fault
		put  bool
	}{
		{"none", "", []signature.PublicKey{key.Public()}, nil, false},
		{"good", keytest.Sign(t, key, string(b), signature.ArtifactComment(stock.Names.ImagePrefix, 7)), []signature.PublicKey{key.Public()}, nil, true},
		{"of another build", keytest.Sign(t, key, string(b), signature.ArtifactComment(stock.Names.ImagePrefix, 8)), []signature.PublicKey{key.Public()}, fault.ManifestIncomplete, true},
		{"by another key", keytest.Sign(t, other, string(b), signature.ArtifactComment(stock.Names.ImagePrefix, 7)), []signature.PublicKey{key.Public()}, fault.ManifestIncomplete, true},
		{"nobody to judge it", "anything", nil, nil, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			files := map[string]string{}
			if tc.sig != "" {
				files["/norm_boot"+signature.Suffix] = tc.sig
			}
			j, _ := testJob(t, policy.Policy{}, tc.keys...)
			for _, k := range tc.keys {
				j.Policy.Keys = append(j.Policy.Keys, k.String())
			}
			f := filesPlan(t, j.Policy, manifest.File{Src: serve(t, files).URL + "/norm_boot", Sha256: sixtyFour}).Files[0]
			dest := filepath.Join(t.TempDir(), "norm_boot")
			if err := os.WriteFile(dest, b, 0o600); err != nil {
				t.Fatal(err)
			}
			err := j.findSignature(t.Context(), &f)
			if err == nil {
				err = j.prove(t.Context(), f, dest)
			}
			if fault.Of(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if _, err := os.Stat(dest + signature.Suffix); (err == nil) != tc.put {
				t.Errorf("the signature lies there: %t, want %t", err == nil, tc.put)
			}
		})
	}
}

// TestImageFits: that no restore could write an image to the planned main disk is found in the factory.
func TestImageFits(t *testing.T) {
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("mke2fs is not installed (Debian package e2fsprogs)")
		}
		t.Skip("mke2fs is not installed (Debian package e2fsprogs)")
	}
	from := imagetest.New(t)
	j, _ := testJob(t, policy.Policy{}, from.Key.Public())
	j.Panel = panel.New()
	j.Run = func(ctx context.Context, _ string, args ...string) ([]byte, int, error) {
		out, err := exec.CommandContext(ctx, mke2fs, args...).CombinedOutput()
		return out, 0, err
	}
	j.plan.Unit.Main = []state.Disk{{Table: layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{{Role: layout.Primary, Number: 1, Size: 2 * layout.GiB}}}}}
	for _, tc := range []struct {
		need filesystem.Need
		want *fault.Fault
	}{
		{filesystem.Need{Inodes: 1000, Blocks: 1000}, nil},
		{filesystem.Need{Inodes: 100_000, Blocks: 400_000}, nil},
		{filesystem.Need{Inodes: 100_000, Blocks: 600_000}, fault.DiskTooSmall},
		{filesystem.Need{Inodes: 200_000, Blocks: 1000}, fault.DiskTooSmall},
	} {
		base := imagetest.Prefix + "2026-11-22.0001"
		meta := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":2048,"inodes":%d,"blocks":%d}`, base, tc.need.Inodes, tc.need.Blocks)
		im := from.Put(t, base+".upd", base, imagetest.WithArtifact(t, meta, imagetest.BzImage(7, "")))
		signed, err := os.ReadFile(im.Path + signature.Suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.prove(t.Context(), File{Image: &im.Name, signed: signed}, im.Path); fault.Of(err) != tc.want || tc.want == nil && err != nil {
			t.Errorf("%+v: %v, want %v", tc.need, err, tc.want)
		}
	}
}
