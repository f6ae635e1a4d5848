package lab_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestErase erases the NVMe main disk of a unit that was asked for it, with a power cut in the middle. What a customer had written is on no
// sector of it, seen from outside; the certificate holds; then the unit restores itself.
func TestErase(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u, _ := l.wholeLife(t, shaped(layout.UEFI, "small", lab.Disk{Name: "recovery", Bus: lab.VirtIO, Size: smallRecovery},
		lab.Disk{Name: "main", Bus: lab.NVMe, Size: smallSize}))
	const secret = "what a customer would not like to be read by anybody else"
	tell(t, u, map[string]any{"do": "write", "path": "/planted", "text": strings.Repeat(secret+"\n", 64)})
	dir := recoveryOf(t, u)
	const request = `{"version":1,"id":"00112233445566778899aabbccddeeff","kind":"erase","by":"a test","time":"2026-11-22T10:00:00Z"}`
	tell(t, u, map[string]any{"do": "write", "path": dir + "/state/request.json", "text": request})
	tell(t, u, map[string]any{"do": "unmount", "path": dir})
	if err := u.Tell(map[string]any{"do": "poweroff"}); err != nil {
		t.Fatal(err)
	}
	off, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	if err := u.Wait(off); err != nil {
		t.Fatal(err)
	}
	if !finds(t, filepath.Join(u.Dir, "main.qcow2"), secret) {
		t.Fatal("what was planted is not on the disk before the erase")
	}
	start(t, u)
	erasing := lab.All(lab.Msg("step"), lab.Field("job", "erase"), lab.Field("step", "erase-disks"))
	if _, err := await(u, bootPatience, lab.All(lab.Msg("drive before the erase"), lab.Field("disk", "nvme0n1"))); err != nil {
		t.Fatal(err)
	}
	u.Cut()
	start(t, u)
	if _, err := await(u, bootPatience, erasing); err != nil {
		t.Fatal(err)
	}
	e, err := await(u, 2*jobPatience, lab.Msg("erase certificate")) // all blocks of both disks are written and read
	if err != nil {
		t.Fatal(err)
	}
	if outcome, level := e.Text("outcome"), e.Text("erased"); outcome != "proved" || level != "clear" {
		t.Errorf("a drive that formats honestly is %s at level %s, want proved at level clear", outcome, level)
	}
	u.Cut()
	s, err := u.Snapshot(t.Context(), filepath.Join(workDir(t, 6<<30), "erased")) // the recovery volume was filled
	if err != nil {
		t.Fatal(err)
	}
	if finds(t, filepath.Join(s.Dir, "main.qcow2"), secret) {
		t.Errorf("%q is left on the disk", secret)
	}
	start(t, u)
	if _, err := await(u, bootPatience, lab.Msg("erase certificate")); err != nil {
		t.Fatal(err)
	}
	typeUntil(t, u, "x", lab.All(lab.Msg("RESET"), func(e lab.Event) bool { return e.Machine }))
	if _, err := await(u, bootPatience, jobState("restore", "started")); err != nil {
		t.Fatal(err)
	}
	whole(t, up(t, u), "2")
	dir = recoveryOf(t, u)
	file := filepath.Join(t.TempDir(), "certificate.json")
	for _, end := range []string{"", ".minisig"} {
		text := tell(t, u, map[string]any{"do": "read", "path": dir + "/erase/certificate.json" + end})
		if err := os.WriteFile(file+end, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Without the server's keys it is a certificate that nobody vouches for, so the exit status is not 0.
	out, err := exec.CommandContext(t.Context(), l.gprov, "erase", "verify", file).CombinedOutput()
	for _, want := range []string{"main disks: proved: the data is gone, at level clear", "recovery volume: proved by a weaker method only",
		"nvme0n1 (main, nvme)", "method: nvme-format-user", "2097152 of 2097152 blocks were read afterwards"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the certificate does not say %q:\n%s\n%v", want, out, err)
		}
	}
}

// typeUntil types a key each second until something follows: what is typed before the unit asks is forgotten.
func typeUntil(t *testing.T, u *lab.Unit, key string, until lab.Match) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		keys(t, u, key)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := u.Events.Wait(ctx, until)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q is typed and nothing follows: %v", key, err)
		}
	}
}

// finds reports whether a text is anywhere on a disk.
func finds(t *testing.T, qcow, text string) bool {
	t.Helper()
	raw := qcow + ".raw"
	run(t, "qemu-img", "convert", "-O", "raw", qcow, raw)
	defer os.Remove(raw)
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, kept := make([]byte, 1<<20), 0
	for {
		n, err := f.Read(buf[kept:])
		if bytes.Contains(buf[:kept+n], []byte(text)) {
			return true
		}
		if err == io.EOF {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = copy(buf, buf[max(0, kept+n-len(text)):kept+n])
	}
}
