package lab_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gprovision/unit/splash"
)

// TestDemo runs the demo itself: the whole life with the Debian image, ending with a login. On UEFI it boots through OVMF's own
// PXE and TFTP. On BIOS it has a display, which shows the whole life, also that systemd starts and then says that it runs.
func TestDemo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--firmware", "uefi", "--native-pxe"}, {"--firmware", "bios", "--display", "635"}} {
		t.Run(args[1], func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			demo := exec.CommandContext(t.Context(), l.gprov, append([]string{"demo", "--init", l.init}, args...)...)
			demo.Env = append(os.Environ(), "TEMPDIR="+workDir(t, 6<<30))
			demo.Cancel = func() error { return demo.Process.Signal(os.Interrupt) }
			demo.WaitDelay = time.Minute
			out, err := demo.CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			if args[1] == "bios" {
				rest := string(out)
				for _, want := range []string{"provision ", "Writing release", "Restarting", "Preparing fresh OS", splash.Started} {
					var ok bool
					if _, rest, ok = strings.Cut(rest, " display │"+want); !ok {
						t.Fatalf("the display did not show %q, or not in its turn:\n%s", want, out)
					}
				}
			}
			t.Logf("%s", tail(string(out), 1500))
		})
	}
}
