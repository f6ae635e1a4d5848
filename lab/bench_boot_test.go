//go:build bench

package lab_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestBenchInitramfs compares the initramfs of our boot artifact with those of initramfs-tools and dracut, and with one that has the init of
// our first release, all made from a Debian with every module of its kernel: the same kernel, the same virtual machine, the same root on its
// disk. It measures the size, and the time from the kernel's start to the first program of the root.
func TestBenchInitramfs(t *testing.T) {
	l := needLife(t)
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t, 2<<30)
	if err := lab.OtherInitramfs(t.Context(), slog.New(slog.DiscardHandler), dir); err != nil {
		t.Fatal(err)
	}
	cache, err := lab.OpenCache("")
	if err != nil {
		t.Fatal(err)
	}
	root, err := lab.BenchRoot(t.Context(), slog.New(slog.DiscardHandler), cache)
	if err != nil {
		t.Fatal(err)
	}
	first := releases(t)[0]
	for name, init := range map[string]string{"ours": l.init, "first": first.programs(t).program("init")} {
		p := *l.tiny
		p.Dir = filepath.Join(dir, name)
		p.Policy.Panels = nil // no panel with keys: no time is given to a person, as by the others
		p.Platforms = nil     // the built-in table: without arrays, as the others have none
		if err := os.MkdirAll(filepath.Join(p.Dir, lab.FilesDir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := p.Artifacts(t.Context(), slog.New(slog.DiscardHandler), root, init, 1); err != nil {
			t.Fatal(err)
		}
		unpackUKI(t, p.Path(lab.BootFile), dir, name)
	}
	mounted := regexp.MustCompile(`(PARTUUID=\S+)\s+/\s`).FindStringSubmatch(f.Up.Text("fstab"))
	if mounted == nil {
		t.Fatalf("no root in the fstab: %s", f.Up.Text("fstab"))
	}
	partition := regexp.MustCompile(`real_root=PARTUUID=\S+`).FindString(f.Up.Text("cmdline"))
	const common = "console=ttyS0,115200 panic=10 quiet "
	theirs := common + "ro init=/usr/lib/systemd/systemd root=" + mounted[1]
	list := []*struct {
		name, kernel, initrd, cmdline string
		size                          int64
		took                          []float64
	}{
		{name: "gprovision", kernel: "ours-vmlinuz", initrd: "ours-initrd", cmdline: common + partition},
		{name: "gprovision with the init of " + first.version, kernel: "first-vmlinuz", initrd: "first-initrd", cmdline: common + partition},
		{name: "initramfs-tools", kernel: "vmlinuz", initrd: "initramfs-tools", cmdline: theirs},
		{name: "dracut", kernel: "vmlinuz", initrd: "dracut", cmdline: theirs},
	}
	n := network(t)
	for range 5 {
		for _, c := range list {
			u := l.fork(t, n, layout.BIOS, nil)
			r, w := io.Pipe()
			unwatch := u.Watch(w)
			start(t, u, lab.DirectKernel(filepath.Join(dir, c.kernel), filepath.Join(dir, c.initrd), c.cmdline))
			late := time.AfterFunc(bootPatience, func() { _ = r.CloseWithError(fmt.Errorf("nothing within %v", bootPatience)) })
			said, err := uptime(r)
			late.Stop()
			_ = r.Close()
			unwatch()
			if err != nil {
				t.Fatal(err)
			}
			s, err := strconv.ParseFloat(said, 64)
			if err != nil {
				t.Fatal(err)
			}
			c.took = append(c.took, s)
			u.Cut()
			st, err := os.Stat(filepath.Join(dir, c.initrd))
			if err != nil {
				t.Fatal(err)
			}
			c.size = st.Size()
		}
	}
	how := "with KVM"
	if !n.Accel.KVM {
		how = "without KVM"
	}
	fmt.Printf("\n### Initramfs: size, and time from the kernel's start to the first program of the root\n\nMedians of 5, one after the other in turn, %s.\n\n| | size | time | size, ours = 1 | time, ours = 1 |\n|---|---|---|---|---|\n", how)
	for _, c := range list {
		slices.Sort(c.took)
		mid, ours := c.took[len(c.took)/2], list[0]
		fmt.Printf("| %s | %.1f MB | %.2f s | %.2f | %.2f |\n", c.name, float64(c.size)/1e6, mid, float64(c.size)/float64(ours.size), mid/ours.took[len(ours.took)/2])
	}
}

// uptime waits for the first program of the root to say on the console how long the kernel has run, in seconds. The console gives a
// line at a time, and stays open for as long as the machine runs.
func uptime(console io.Reader) (string, error) {
	said := regexp.MustCompile(`tiny system started, uptime ([0-9.]+) `)
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		if m := said.FindStringSubmatch(lines.Text()); m != nil {
			return m[1], nil
		}
	}
	return "", fmt.Errorf("the console ended: %w", lines.Err())
}
