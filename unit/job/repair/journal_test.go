package repair_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/job/repair"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/survey"
)

// debugfs runs commands of debugfs(8) on a filesystem in a file, and returns what it prints.
func debugfs(t *testing.T, file string, commands ...string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("debugfs", "-w", "-f", script, file).CombinedOutput()
	if err != nil {
		machinetest.Skip(t, fmt.Sprintf("debugfs (Debian package e2fsprogs): %v: %s", err, out))
	}
	return string(out)
}

// clearedInJournal returns an ext4 filesystem on which the file mark was removed and synced, and the power was cut before that reached its
// place: it is in the journal alone, and the directory has the mark yet.
func clearedInJournal(t *testing.T, m *machine.Machine) string {
	t.Helper()
	dir := t.TempDir()
	file, after := filepath.Join(dir, "fs"), filepath.Join(dir, "after")
	mark, blocks := filepath.Join(dir, "mark"), filepath.Join(dir, "blocks")
	err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 200*layout.MiB), os.WriteFile(mark, []byte("{}"), 0o600))
	if err == nil {
		err = m.MakeExt4(t.Context(), file, "PRIMARY", "0f4bd1a3-0000-4000-8000-000000000000")
	}
	if err != nil {
		machinetest.Skip(t, fmt.Sprintf("mke2fs: %v", err))
	}
	debugfs(t, file, "write "+mark+" mark")
	was, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(after, was, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	debugfs(t, after, "rm mark")
	is, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	const block = 4096
	var changed []byte
	var numbers []string
	for n := 1; n < len(is)/block; n++ { // not the superblock
		if b := is[n*block : (n+1)*block]; !bytes.Equal(b, was[n*block:(n+1)*block]) {
			changed, numbers = append(changed, b...), append(numbers, fmt.Sprint(n))
		}
	}
	if err := os.WriteFile(blocks, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	debugfs(t, file, "journal_open", "journal_write -b "+strings.Join(numbers, ",")+" "+blocks, "journal_close")
	if !awaits(t, file) || !strings.Contains(debugfs(t, file, "ls"), "mark") {
		t.Fatal("the journal is not as it is meant")
	}
	return file
}

func awaits(t *testing.T, file string) bool {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	due, err := filesystem.AwaitsReplay(f)
	return due && err == nil
}

// TestJournalCounts: after a repair by the real e2fsck a mark that was cleared in the journal alone is gone, also where the superblock that
// says so was lost: else a half-written system would be started.
func TestJournalCounts(t *testing.T) {
	for name, lose := range map[string]bool{"superblock sound": false, "superblock lost": true} {
		t.Run(name, func(t *testing.T) {
			log := slog.New(slog.DiscardHandler)
			m := &machine.Machine{Log: log, Panel: panel.New(), Doors: machine.Real(log, nil, nil)}
			file := clearedInJournal(t, m)
			if lose {
				machinetest.Overwrite(t, file, 1024, make([]byte, 1024))
			}
			f := &survey.Findings{}
			f.Recovery, f.MainPart = decide.RecoveryMissing, &machine.Found{Path: file}
			e := jobtest.Env(m)
			repair.Main(t.Context(), e, f)
			all := machinetest.Heard(t, e.Queue)
			if last := all[len(all)-1]; last.Phase != record.Succeeded {
				t.Errorf("the server hears %+v", last)
			}
			if awaits(t, file) {
				t.Error("the journal is not replayed")
			}
			if got := debugfs(t, file, "ls"); strings.Contains(got, "mark") {
				t.Errorf("the mark is back:\n%s", got)
			}
		})
	}
}
