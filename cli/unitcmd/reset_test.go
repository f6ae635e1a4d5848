package unitcmd

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"gprovision/model/layout"
	"gprovision/unit/state"
)

// TestReset: each tier asks for its kind, says what is lost and what stays, and is written once it is confirmed: an erase twice.
func TestReset(t *testing.T) {
	data := layout.Table{Kind: layout.GPT, UUID: "11111111-2222-4333-8444-555555555555",
		Partitions: []layout.Partition{{Number: 1, Start: 1 << 20, Size: 1 << 20, Role: layout.Data,
			UUID: "11111111-2222-4333-8444-666666666666", Type: layout.TypeLinux}}}
	for name, c := range map[string]struct {
		args     []string
		terminal bool
		answer   string
		data     bool
		spoil    string // a file that is removed before
		code     int
		kind     string // of the request, "" for none
		ops      string
		say      string
		not      string
	}{
		"nothing said":  {args: []string{"reset"}, code: 2, say: "--settings, --system"},
		"two tiers":     {args: []string{"reset", "--settings", "--erase"}, code: 2, say: "--settings"},
		"nobody to ask": {args: []string{"reset", "--settings"}, code: 2, say: "--yes"},
		"settings": {args: []string{"reset", "--settings", "-y"}, data: true,
			kind: state.KindRestoreSettings, ops: "rw,ro", say: "password, the data partition.", not: "all data"},
		"settings, no data": {args: []string{"reset", "--settings", "-y"},
			kind: state.KindRestoreSettings, ops: "rw,ro", say: "no data partition: all data", not: ", the data partition"},
		"system": {args: []string{"reset", "--system", "-y"}, data: true,
			kind: state.KindRestore, ops: "rw,ro", say: "the saved network files, the restore data, the data partition."},
		"system, no data": {args: []string{"reset", "--system", "-y"},
			kind: state.KindRestore, ops: "rw,ro", say: "no data partition: all data"},
		"everything": {args: []string{"reset", "--everything", "-y", "--reboot"}, data: true,
			kind: state.KindRestoreEverything, ops: "rw,ro,systemctl reboot", say: "all data on the main disks"},
		"everything, no": {args: []string{"reset", "--everything"}, terminal: true, answer: "no\n",
			code: 1, say: "not confirmed"},
		"everything, yes": {args: []string{"reset", "--everything"}, terminal: true, answer: "yes\n",
			kind: state.KindRestoreEverything, ops: "rw,ro"},
		"erase": {args: []string{"reset", "--erase", "-y"},
			kind: state.KindErase, ops: "rw,ro", say: "beyond recovery"},
		"erase, once yes": {args: []string{"reset", "--erase"}, terminal: true, answer: "yes\n",
			code: 1, say: "Nobody can bring"},
		"erase, twice yes": {args: []string{"reset", "--erase"}, terminal: true, answer: "yes\nyes\n",
			kind: state.KindErase, ops: "rw,ro"},
		"erase, no key": {args: []string{"reset", "--erase", "-y"}, spoil: state.KeyFile, code: 1, say: "G213"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			u, err := f.volume().ReadUnit()
			if c.data {
				u.Main[0].Table = data
			}
			if err := errors.Join(err, f.volume().WriteUnit(u)); err != nil {
				t.Fatal(err)
			}
			if c.spoil != "" {
				if err := os.Remove(f.volume().Path(c.spoil)); err != nil {
					t.Fatal(err)
				}
			}
			f.Terminal, f.Stdin = c.terminal, strings.NewReader(c.answer)
			code := f.run(c.args...)
			all := f.out.String() + f.err.String()
			if code != c.code || !strings.Contains(all, c.say) || c.not != "" && strings.Contains(all, c.not) ||
				strings.Join(f.ops, ",") != c.ops {
				t.Errorf("exit status %d, mounts %q: %s", code, f.ops, all)
			}
			r, err := f.volume().ReadRequest()
			if c.kind == "" && !errors.Is(err, fs.ErrNotExist) || c.kind != "" &&
				(err != nil || r.Kind != c.kind || r.By != "gprov-unit reset") {
				t.Errorf("request %+v, %v", r, err)
			}
			if code := f.run("reset", "--cancel"); code != 0 {
				t.Error(f.err.String())
			}
			if _, err := f.volume().ReadRequest(); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	f := newFake(t)
	f.run("reset", "--help")
	for _, want := range []string{"sudo gprov-unit reset --settings", "sudo gprov-unit reset --system", "sudo gprov-unit reset --everything",
		"sudo gprov-unit reset --erase"} {
		if !strings.Contains(f.out.String(), want) {
			t.Errorf("--help has no example %q:\n%s", want, f.out.String())
		}
	}
}
