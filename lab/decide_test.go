package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// offline is the ext4 filesystem of a disk whose unit is off.
type offline struct {
	t     *testing.T
	raw   string
	start int64 // byte of the disk where the filesystem begins
}

// offlineChange changes the only ext4 filesystem of a disk while the unit is off.
func offlineChange(t *testing.T, u *lab.Unit, disk string, change func(offline)) {
	t.Helper()
	raw := filepath.Join(u.Dir, disk+".raw")
	run(t, "qemu-img", "convert", "-O", "raw", filepath.Join(u.Dir, disk+".qcow2"), raw)
	var table struct {
		PartitionTable struct {
			Partitions []struct{ Start int64 }
		}
	}
	if err := json.Unmarshal([]byte(run(t, "sfdisk", "--json", raw)), &table); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range table.PartitionTable.Partitions {
		magic := make([]byte, 2)
		if _, err := f.ReadAt(magic, p.Start*512+1080); err == nil && magic[0] == 0x53 && magic[1] == 0xef {
			change(offline{t, raw, p.Start * 512})
			insert(t, u, disk, raw)
			return
		}
	}
	t.Fatalf("no ext4 on %s", disk)
}

// do runs a command of debugfs(8), which reports mistakes in its output only.
func (o offline) do(format string, args ...any) string {
	o.t.Helper()
	command := fmt.Sprintf(format, args...)
	verb, _, _ := strings.Cut(command, " ")
	out := run(o.t, "debugfs", "-w", "-R", command, fmt.Sprintf("%s?offset=%d", o.raw, o.start))
	if strings.Contains(out, "\n"+verb+": ") {
		o.t.Fatalf("debugfs %s: %s", command, out)
	}
	return out
}

// write replaces a file.
func (o offline) write(name, text string) {
	o.t.Helper()
	tmp := filepath.Join(o.t.TempDir(), "file")
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	run(o.t, "debugfs", "-w", "-R", "rm "+name, fmt.Sprintf("%s?offset=%d", o.raw, o.start)) // it may not be there
	o.do("write %s %s", tmp, name)
}

// fill leaves no room but in a log.
func (o offline) fill() {
	o.t.Helper()
	free := regexp.MustCompile(`Free blocks:\s+(\d+)`).FindStringSubmatch(o.do("stats -h"))
	if free == nil {
		o.t.Fatal("debugfs does not say how many blocks are free")
	}
	blocks, err := strconv.ParseInt(free[1], 10, 64)
	if err != nil {
		o.t.Fatal(err)
	}
	const log = "/log/old.log"
	blocks -= 64
	o.do("write /dev/null %s", log)
	o.do("fallocate %s 0 %d", log, blocks-1)
	o.do("set_inode_field %s size %d", log, blocks*4096)
	o.do("set_inode_field %s mtime 20200101000000", log)
}

// TestBadImage has a unit whose system hangs at each start: the watchdog ends the boot, which is counted, and after the last of the
// boots that the policy allows the previous image is restored. Much else is wrong: the main system's superblock is lost, the
// history is damaged, and the recovery volume is full.
func TestBadImage(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, func(c *lab.Config) { c.Watchdog = true })
	counts, err := state.Counts{BootAttempts: l.tiny.Policy.FailedBoots - 1}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	offlineChange(t, u, "recovery", func(o offline) {
		o.write("/state/count.json", string(counts))
		o.write("/"+state.HistoryFile, "{damaged")
		o.fill()
	})
	offlineChange(t, u, "main", func(o offline) {
		o.do("mkdir /etc/systemd/system.conf.d")
		o.write("/etc/systemd/system.conf.d/watchdog.conf", "[Manager]\nRuntimeWatchdogSec=10\n")
		f, err := os.OpenFile(o.raw, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 1024), o.start+1024); err != nil {
			t.Fatal(err)
		}
	})
	start(t, u)
	hang, err := await(u, bootPatience, lab.Msg("handing over"))
	if err != nil {
		t.Fatal(err)
	}
	seen(t, u, 1, lab.All(lab.Msg("watchdog armed"), lab.Field("identity", "i6300ESB timer")), "watchdog that resets, not the chipset's own")
	if got := int(hang.Number("attempts")); got != l.tiny.Policy.FailedBoots {
		t.Errorf("attempt %d is handed over, want %d", got, l.tiny.Policy.FailedBoots)
	}
	seen(t, u, 1, jobState("repair", "succeeded"), "repair of the main system")
	seen(t, u, 1, lab.All(lab.Msg("watchdog handed over"), lab.Field("running", "true")), "watchdog that runs on")
	expect(t, u, time.Minute, lab.Msg("RESET"))
	if _, err := await(u, bootPatience, lab.All(lab.Msg("watchdog armed"), lab.Field("ended the last boot", "true"))); err != nil {
		t.Fatal(err)
	}
	e := up(t, u)
	whole(t, e, "1")
	oneWrite(t, u)
	if ports := e.Text("ports"); ports != "lo" { // as the system found them, before it loaded its own drivers
		t.Errorf("a normal boot has the network ports %q: their drivers are the system's to load", ports)
	}
	seen(t, u, 1, jobState("restore", "succeeded"), "restore")
	seen(t, u, 1, lab.Msg("the recovery volume was full"), "room that is made")
	seen(t, u, 1, lab.All(lab.Msg("watchdog handed over"), lab.Field("running", "false")), "watchdog that is stopped")
	dir := recoveryOf(t, u)
	if names := tell(t, u, map[string]any{"do": "list", "path": dir + "/log"}); !strings.Contains(names, "history.json_bad") {
		t.Errorf("the damaged history is not set aside: %s", names)
	}
	if text := tell(t, u, map[string]any{"do": "read", "path": dir + "/" + state.HistoryFile}); !strings.Contains(text, "were not marked good") {
		t.Errorf("the history does not say what happened: %s", text)
	}
}

// TestNoNetwork has a unit that is to be provisioned where no DHCP server answers: it holds and says why, and goes on when there is
// one.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n := network(t)
	u := newUnit(t, n, config(layout.UEFI, lab.VirtIO))
	dir := t.TempDir()
	unpackUKI(t, l.tiny.Path(lab.ProvisionFile), dir, "ours")
	start(t, u, lab.DirectKernel(filepath.Join(dir, "ours-vmlinuz"), filepath.Join(dir, "ours-initrd"), "console=ttyS0,115200 quiet no_timer_check mfgurl=http://10.77.0.1/none.json"))
	e := expect(t, u, bootPatience, lab.Msg("hold"))
	if e.Text("code") != fault.NoNetwork.Code {
		t.Errorf("the unit holds with %s, want G101", e.Text("code"))
	}
	shown(t, u, 0, fault.NoNetwork.Code)
	shown(t, u, 0, fault.NoNetwork.Hint)
	l.serve(t, n, product(t, l.tiny))
	expect(t, u, bootPatience, lab.Msg("network port configured"))
}

// oneWrite checks that init wrote one block to the recovery volume before it handed over, by the kernel's own count
// (Documentation/block/stat.rst).
func oneWrite(t *testing.T, u *lab.Unit) {
	t.Helper()
	s := strings.Fields(tell(t, u, map[string]any{"do": "read", "path": "/sys/block/vda/stat"}))
	if len(s) < 7 || s[6] != "8" { // requests are no measure: a flush counts as one
		t.Errorf("writes to the recovery device before the hand-over: %v, want 8 sectors", s)
	}
}
