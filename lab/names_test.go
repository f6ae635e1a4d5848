package lab_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/forge/boot"
	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/site"
	"gprovision/unit/state"
)

// TestOwnNamesLive takes a unit of a company with names of its own through its life: the server provisions it, it restores itself, fetches a
// later release that calls its volumes otherwise, and restores that. It keeps the labels that it was provisioned with, and finds its
// volumes under both artifacts.
func TestOwnNamesLive(t *testing.T) {
	needLoop(t)
	if err := lab.Usable(); err != nil {
		skip(t, err.Error())
	}
	l := programs(t)
	ctx, work := context.Background(), workDir(t, 3<<30)
	acme := naming.Names{Version: naming.Version, ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT", HostPrefix: "acme-"}
	later := naming.Names{Version: naming.Version, ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "FOXREC", PrimaryLabel: "FOXROOT", HostPrefix: "fox-"}
	p, err := lab.NewProduct(filepath.Join(work, "data"))
	if err != nil {
		t.Fatal(err)
	}
	p.Names = acme
	if err := p.Artifacts(ctx, slog.New(slog.DiscardHandler), l.debian, l.init, 1); err != nil {
		t.Fatal(err)
	}
	// image makes the image of a build with the norm_boot at hand.
	image := func(build uint64) string {
		t.Helper()
		root := filepath.Join(work, fmt.Sprintf("tiny%d.tar", build))
		f, err := os.Create(root)
		if err == nil {
			err = errors.Join(lab.TinyRoot(f, filepath.Join(l.dir, "tiny"), fmt.Sprint(build), nil, filepath.Join(l.dir, "gprov-unit")), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		name, err := p.Release(ctx, slog.New(slog.DiscardHandler), root, build, "0", nil)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first := image(1)
	acmes, foxes := filepath.Join(work, "acme-boot"), filepath.Join(work, "fox-boot")
	run(t, "mv", p.Path(lab.BootFile), acmes)
	_, err = boot.Build(ctx, nil, boot.Options{RootFS: l.debian, Init: l.init, Policy: p.Policy, Platforms: p.Platforms, Names: later, BuildNumber: 2, Time: time.Now(), Out: p.Path(lab.BootFile)})
	if err != nil {
		t.Fatal(err)
	}
	newer := image(2)
	run(t, "mv", p.Path(lab.BootFile), foxes)
	run(t, "cp", acmes, p.Path(lab.BootFile))
	if err := p.Manifest([]string{first}, nil); err != nil {
		t.Fatal(err)
	}

	n := network(t)
	s := l.serve(t, n, p)
	u := newOldUnit(t, work, "", map[string]string{"provision": p.Path(lab.ProvisionFile), "acme": acmes, "fox": foxes})
	u.names = site.Stock().Names.Of(acme)
	a := u.artifacts["provision"]
	a.station = n
	args, err := bootScript(ctx, n, a.config)
	if err != nil {
		t.Fatal(err)
	}
	succeeded, approved, held := false, false, ""
	end := a.boot(t, args, func(e lab.Event) bool {
		succeeded = succeeded || jobState("provision", "succeeded")(e)
		// No port of the unit's has fetched the boot script, so that it has no token.
		if key := e.Text("key"); !approved && strings.HasPrefix(e.Msg(), "waiting for approval") {
			if approved = true; s.Approve(ctx, serial, key) != nil {
				t.Errorf("the server does not let the key %s in", key)
			}
		}
		if bad(e) {
			held = e.String()
		}
		return bad(e)
	})
	if end != endReboot || !succeeded {
		t.Fatalf("provisioning ends with a %s: %s", end, held)
	}
	s.Stop()
	labels := func(what string) {
		t.Helper()
		for i, want := range []string{"ACMEREC", "ACMEROOT"} {
			loop := attach(t, u.disks[i])
			var info filesystem.Info
			d, err := block.Open(loop+"p1", false)
			if err == nil {
				info, err = filesystem.Probe(d, d.Size())
				err = errors.Join(err, d.Close())
			}
			detach(t, loop)
			if err != nil || info.Label != want {
				t.Errorf("%s: disk %d has the label %q, %v, want %s", what, i, info.Label, err, want)
			}
		}
	}
	live := func(what, version string, started, jobs []string, then ...[]string) {
		t.Helper()
		began := time.Now()
		s, j := u.session(t, version, then...)
		if !slices.Equal(s, started) || !slices.Equal(j, jobs) {
			t.Errorf("%s: it starts with %v and does %v, want %v and %v", what, s, j, started, jobs)
		}
		for _, f := range u.faults() {
			t.Errorf("%s: %s", what, f)
		}
		labels(what)
		t.Logf("%s: %s", what, time.Since(began).Round(time.Second))
		if t.Failed() {
			t.FailNow()
		}
	}
	live("the first restore", "1", []string{"acme", "acme"}, []string{"restore", "boot"}, []string{"status", "--json"}, []string{"boot-ok", "--wait", "0s"})
	err = mounted(t, u.disks[1], 0, func(dir string) {
		for _, name := range []string{newer, newer + ".minisig"} {
			run(t, "cp", p.Path(name), filepath.Join(dir, "root"))
		}
		if b, err := os.ReadFile(filepath.Join(dir, "etc/provisioning/names.json")); err != nil {
			t.Error(err)
		} else if got, err := naming.Parse(b); err != nil || got != acme {
			t.Errorf("the system has the names %+v, %v", got, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	live("a later release is fetched, and asked for", "1", []string{"acme"}, []string{"boot"}, []string{"boot-ok", "--wait", "0s"}, []string{"fetch", "/root/" + newer}, []string{"restore", "--image", newer, "--yes"})
	// The init of the first release restores it: its host prefix counts.
	live("the later release starts", "2", []string{"acme", "fox"}, []string{"restore", "boot"}, []string{"status", "--json"}, []string{"boot-ok", "--wait", "0s"}, []string{"restore", "--image", "latest", "--yes"})
	u.names.HostPrefix = "fox-"
	live("and restores itself", "2", []string{"fox", "fox"}, []string{"restore", "boot"}, []string{"boot-ok", "--wait", "0s"}, []string{"restore", "--image", "original", "--yes"})
	live("the original is restored", "1", []string{"fox", "acme"}, []string{"restore", "boot"}, []string{"status", "--json"}, []string{"boot-ok", "--wait", "0s"})
	err = mounted(t, u.disks[0], syscall.MS_RDONLY, func(dir string) {
		rec, err := state.Open(dir).ReadUnit()
		if err != nil || rec.ImagePrefix != acme.ImagePrefix || rec.Original != first || rec.Recovery.Table.Find(layout.Recovery).FSLabel != "ACMEREC" {
			t.Errorf("the unit's record is %+v, %v", rec, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
