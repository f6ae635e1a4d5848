package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gprovision/hw/console"
	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// TestLCD runs the demo on a display that is simulated, each by its verb.
func TestLCD(t *testing.T) {
	for _, model := range []string{"631", "635"} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			link := filepath.Join(t.TempDir(), "lcd")
			ctx, cancel := context.WithCancel(t.Context())
			r, w := io.Pipe()
			done := make(chan error, 1)
			go func() {
				err := (&LCDSimulateCmd{Model: model, Link: link, Drop: 11}).Run(&Context{Context: ctx, Stdout: w, Stderr: io.Discard})
				w.Close()
				done <- err
			}()
			var pictures bytes.Buffer
			read := make(chan struct{})
			buf := make([]byte, 4096)
			n, err := r.Read(buf)
			if err != nil || !regexp.MustCompile(`^LCD `+model+` on /dev/pts/\d+\n$`).Match(buf[:n]) {
				t.Fatalf("it says %q, %v", buf[:n], err)
			}
			go func() {
				_, _ = io.Copy(&pictures, r)
				close(read)
			}()
			var out, errs bytes.Buffer
			c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errs}
			// A picture stays for longer than the driver needs to send again what the display drops (hw/lcd: 250 ms a time).
			if err := (&LCDDemoCmd{Port: link, Pause: time.Second, Wait: time.Second}).Run(c); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.HasPrefix(got, link+": LCD "+model+", ") || !strings.HasSuffix(got, "\nmenu\n") || errs.Len() > 0 {
				t.Errorf("the demo says %q, %q", got, errs.String())
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			<-read
			for _, want := range []string{"│Something is wrong", "►No◄ Yes", "Progress"} {
				if !strings.Contains(pictures.String(), want) {
					t.Errorf("%q was never seen", want)
				}
			}
			c = &Context{Context: t.Context(), Stdout: &out, Stderr: &errs}
			if err := (&LCDDemoCmd{Port: link}).Run(c); err == nil || report(&errs, err) != 1 || !strings.Contains(errs.String(), "gprov lcd simulate") {
				t.Errorf("without a display: %v, %s", err, errs.String())
			}
		})
	}
}

func TestLCDKeys(t *testing.T) {
	for m, want := range map[lcd.Model]byte{lcd.Model631: 0x0f, lcd.Model635: 0x3f} {
		sim := simulator.New(m)
		keys := make(chan console.Key, 8)
		for _, k := range []console.Key{console.Up, console.Down, console.Left, console.Right, console.Enter, console.Escape, 'x', 'q'} {
			keys <- k
		}
		pressKeys(sim, keys)
		if len(keys) != 0 {
			t.Errorf("%d keys are left", len(keys))
		}
		ours, theirs := net.Pipe()
		go func() { _ = sim.Serve(theirs) }()
		c, err := lcd.Connect(t.Context(), ours, lcd.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := c.PollKeys(t.Context()); err != nil || p.Pressed != want || p.Released != want {
			t.Errorf("%v: %+v, %v", m, p, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
