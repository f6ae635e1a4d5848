//go:build soak

package lab_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/forge/boot"
	"gprovision/lab"
	"gprovision/model/layout"
)

// TestSoakLifeFromSource is the life of units whose boot artifacts are kernels that were compiled from Debian's source, with their initramfs
// inside and without modules. The recovery artifact is signed, and newer than the one in the release: both devices start it.
func TestSoakLifeFromSource(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	p := product(t, l.tiny)
	kernel := func(name string, provision bool, build uint64) boot.Report {
		t.Helper()
		o := boot.KernelOptions{Options: boot.Options{
			RootFS: l.debian, Init: l.init, Policy: p.Policy, Platforms: p.Platforms, Provision: provision, BuildNumber: build, Time: time.Now(), Out: p.Path(name),
		}, LocalVersion: "-norm_boot", Cache: os.Getenv("GPROV_KERNEL_CACHE")}
		if err := os.RemoveAll(o.Out); err != nil {
			t.Fatal(err)
		}
		r, err := boot.BuildKernel(t.Context(), logger(t), o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	kernel(lab.BootFile, false, 1)
	image, err := p.Release(t.Context(), logger(t), l.tinyRoot(2), 3, "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := kernel(lab.BootFile, false, 2)
	if err := p.SignArtifact(2); err != nil { // one that nothing vouches for starts no main disk, however new it says that it is
		t.Fatal(err)
	}
	kernel(lab.ProvisionFile, true, 2)
	for _, name := range []string{lab.ManifestFile, lab.ManifestFile + ".minisig"} {
		if err := os.Remove(p.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Manifest([]string{image}, nil); err != nil {
		t.Fatal(err)
	}
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			n := network(t)
			l.serve(t, n, product(t, p)) // which knows no unit yet
			u := newUnit(t, n, config(fw, lab.VirtIO))
			start(t, u)
			took, err := live(u)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", strings.Join(took, ", "))
			whole(t, up(t, u), "2")
			again(t, u, "")
			whole(t, up(t, u), "2")
			seen(t, u, 2, jobState("restore", "succeeded"), "restore")
			seen(t, u, 0, lab.All(lab.Msg("init"), lab.Field("build", "1")), "start of the release's own artifact, though the recovery artifact is newer")
			for _, e := range u.Events.Seen(lab.Msg("init")) {
				if e.Text("kernel") != r.Kernel {
					t.Errorf("kernel %s ran, want %s", e.Text("kernel"), r.Kernel)
				}
			}
		})
	}
}
