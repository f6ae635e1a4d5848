package lab_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// grubPrompt is what GRUB shows where it takes commands: of its shell, and of the one that it falls back to.
var grubPrompt = regexp.MustCompile(`grub( rescue)?> `)

// grubConfig is where GRUB's configuration is on both disks.
const grubConfig = "/boot/grub/grub.cfg"

// noPrompt checks that nothing on the console could be asked to show a file.
func noPrompt(t *testing.T, u *lab.Unit) {
	t.Helper()
	if at := grubPrompt.FindStringIndex(u.Console()); at != nil {
		t.Errorf("GRUB takes commands: %s", tail(u.Console()[:at[1]], 500))
	}
}

// TestGRUBFails has disks from which GRUB can start nothing. It takes no command then, on no console, but starts the machine again.
func TestGRUBFails(t *testing.T) {
	t.Parallel()
	const serialLine = "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\necho 'this is read'\n"
	for _, c := range []struct {
		name  string
		spoil func(o offline)
		shows string // on the serial line, if that is used
	}{
		{"configuration missing", func(o offline) { o.do("rm " + grubConfig) }, ""},
		{"configuration empty", func(o offline) { o.write(grubConfig, "") }, ""},
		{"configuration broken", func(o offline) { o.write(grubConfig, serialLine+"if test -n \"x\"; then {\n}}\nmenuentry 'x\n") }, "this is read"},
		{"kernel missing", func(o offline) {
			for _, m := range regexp.MustCompile(`linux '([^']+)'`).FindAllStringSubmatch(o.do("cat "+grubConfig), 1) {
				o.do("rm %s", m[1])
			}
		}, "nothing to start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			u := l.fork(t, network(t), layout.BIOS, nil)
			for _, disk := range []string{"recovery", "main"} {
				offlineChange(t, u, disk, c.spoil)
			}
			s := newScreen(t, u)
			start(t, u)
			if c.shows != "" {
				s.shows(t, u, bootPatience, c.shows, "")
			}
			again := time.NewTicker(time.Second)
			defer again.Stop()
			end := time.After(bootPatience)
			for len(u.Events.Seen(lab.Msg("RESET"))) == 0 {
				select {
				case <-again.C: // a person tries everything meanwhile
					keys(t, u, escape+"c"+enter+"e"+enter)
					for _, k := range []string{"esc", "c", "ret"} {
						if err := u.Press(t.Context(), k); err != nil {
							t.Fatal(err)
						}
					}
				case <-end:
					t.Fatalf("the machine does not start again: %s", tail(u.Console(), 1000))
				}
			}
			noPrompt(t, u)
			if strings.Contains(u.Console(), "Linux version") {
				t.Error("a kernel started, and this tests nothing")
			}
		})
	}
}
