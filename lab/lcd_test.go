package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/unit/splash"
)

// withDisplay makes a unit one of the platform with a display.
func withDisplay(model lcd.Model) func(*lab.Config) {
	return func(c *lab.Config) {
		c.LCD, c.SMBIOS.Product = model.String(), lab.PlatformProductLCD
	}
}

// sees waits until the display of a unit shows a text.
func sees(t *testing.T, u *lab.Unit, text string) simulator.Screen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	s, err := u.Display().Wait(ctx, func(s simulator.Screen) bool { return s.Contains(text) })
	if err != nil {
		t.Fatalf("waiting for %q: %v", text, err)
	}
	return s
}

// choose moves to an option by the given key and chooses it. A slow unit may be asked to move once more than needed: it comes round.
func choose(t *testing.T, u *lab.Unit, move, enter lcd.Key, option string) {
	t.Helper()
	selected := func(patience time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := u.Display().Wait(ctx, func(s simulator.Screen) bool { return s.Contains("►" + option) })
		return err == nil
	}
	for range 40 {
		if selected(2 * time.Second) {
			u.Display().Tap(enter)
			return
		}
		u.Display().Tap(move)
	}
	t.Fatalf("there is no option %q: %q", option, u.Display().Screen().Lines())
}

// ready waits until the unit listens to the keys of its display.
func ready(t *testing.T, u *lab.Unit, m lcd.Model) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	if _, err := u.Display().Wait(ctx, func(s simulator.Screen) bool { return s.PressMask == 0 && s.RelMask == m.KeyMask() }); err != nil {
		t.Fatal(err)
	}
}

// TestDisplay chooses in the menu with the keys of a 635 on a serial port, and sees the installed system start.
func TestDisplay(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, withDisplay(lcd.Model635))
	start(t, u)
	ready(t, u, lcd.Model635)
	u.Display().Tap(lcd.KeyLeft)
	sees(t, u, "Menu")
	choose(t, u, lcd.KeyDown, lcd.KeyEnter, "Restore: choose")
	sees(t, u, "Choose image")
	u.Display().Tap(lcd.KeyExit)
	sees(t, u, "Menu")
	choose(t, u, lcd.KeyUp, lcd.KeyEnter, "Resume normal boot")
	sees(t, u, "Preparing fresh OS") // no boot was marked as good yet
	up(t, u)
	seen(t, u, 1, lab.All(lab.Msg("choice"), lab.Field("choice", "resume")), "choice")
	tell(t, u, map[string]any{"do": "connect", "path": splash.Socket})
	s := u.Display().Screen()
	if !s.Contains("OS is running") || s.PressMask != 0x3f {
		t.Errorf("the display is handed over as %q, %+v", s.Lines(), s)
	}
}

// TestVMDisplay attaches to the display of a gprov vm, whose unit need not come far for that, and sees it drawn.
func TestVMDisplay(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	dir := workDir(t, 1<<30)
	vm := exec.CommandContext(t.Context(), l.gprov, "vm", "--dir", dir, "--display", "635", "--firmware", "bios")
	var errs bytes.Buffer
	vm.Stderr = &errs
	out, err := vm.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	told := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, how, ok := strings.Cut(lines.Text(), "the display: "); ok {
				told <- strings.TrimSpace(how)
			}
		}
		ended <- vm.Wait()
	}()
	end := func() {
		_ = vm.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("gprov vm does not end")
			_ = vm.Process.Kill()
			<-ended
		}
	}
	socket := filepath.Join(dir, "display")
	select {
	case how := <-told:
		if how != "gprov lcd attach "+socket {
			t.Errorf("it says %q", how)
		}
	case <-time.After(2 * time.Minute):
		end()
		t.Fatalf("gprov vm says nothing of its display: %s", errs.String())
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		end()
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	lines := bufio.NewScanner(c)
	seen := false
	for !seen && lines.Scan() {
		seen = strings.Contains(lines.Text(), "│Crystalfontz 635    │")
	}
	if !seen {
		t.Errorf("the display is not drawn: %v", lines.Err())
	}
	end()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}
