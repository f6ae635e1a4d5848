package cli

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// obey has a display obey requests, and returns when it has.
func obey(t *testing.T, sim *simulator.LCD, requests ...lcd.Packet) {
	t.Helper()
	var b []byte
	for _, p := range requests {
		p.Kind = lcd.Request
		var err error
		if b, err = p.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := sim.Serve(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(b), io.Discard}); err != nil {
		t.Fatal(err)
	}
}

// row is a request that writes a whole row.
func row(n byte, text string) lcd.Packet {
	return lcd.Packet{Command: lcd.CmdWrite, Data: append([]byte{0, n}, lcd.Encode(text+strings.Repeat(" ", lcd.Columns-len(text)))...)}
}

// TestAttach attaches two terminals to a display: both see it, each presses keys, and each leaves by itself.
func TestAttach(t *testing.T) {
	t.Parallel()
	sim := simulator.New(lcd.Model635)
	path := filepath.Join(t.TempDir(), displaySocket)
	for range 2 { // the second time there is a socket that nobody removed
		l, err := listenDisplay(path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := listenDisplay(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st.Mode(), err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	go serveDisplay(ctx, l, sim)

	r, w := io.Pipe()
	attached := make(chan error, 1)
	go func() {
		err := (&LCDAttachCmd{Socket: path}).Run(&Context{Context: t.Context(), Stdout: w, Stderr: io.Discard})
		_ = w.Close()
		attached <- err
	}()
	seen := func(r io.Reader, text string) {
		t.Helper()
		var all []byte
		b := make([]byte, 4096)
		for !strings.Contains(string(all), text) {
			n, err := r.Read(b)
			if all = append(all, b[:n]...); err != nil {
				t.Fatalf("%q does not come: %v, %q", text, err, all)
			}
		}
	}
	seen(r, "│Crystalfontz 635    │")
	typing, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer typing.Close()
	if err := typing.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	seen(typing, "│Crystalfontz 635    │")
	obey(t, sim, row(1, "Hello"))
	seen(r, "│Hello               │")
	seen(typing, "│Hello               │")

	if _, err := io.WriteString(typing, "\x1b[A\rq"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, typing); err != nil { // it is closed
		t.Error(err)
	}
	var polled bytes.Buffer
	b, err := lcd.Packet{Kind: lcd.Request, Command: lcd.CmdPollKeys}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Serve(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(b), &polled}); err != nil {
		t.Fatal(err)
	}
	if got, want := polled.Bytes()[3], lcd.KeyUp.Mask()|lcd.KeyEnter.Mask(); got != want {
		t.Errorf("keys %#x were pressed, want %#x", got, want)
	}

	go io.Copy(io.Discard, r)
	end()
	if err := <-attached; err != nil {
		t.Errorf("when the unit is gone: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	err = (&LCDAttachCmd{Socket: path}).Run(&Context{Context: t.Context(), Stdout: io.Discard, Stderr: &errs})
	if err == nil || report(&errs, err) != 1 || !strings.Contains(errs.String(), "gprov vm --display") {
		t.Errorf("without a unit: %v, %s", err, errs.String())
	}
	if l, err := listenDisplay(filepath.Join(t.TempDir(), strings.Repeat("x", 120))); err == nil || l != nil {
		t.Error("a path that is too long for a socket is taken")
	} else if report(&errs, err); !strings.Contains(errs.String(), "shorter --dir") {
		t.Errorf("a path that is too long: %s", errs.String())
	}
	other := filepath.Join(t.TempDir(), displaySocket)
	if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenDisplay(other); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

// TestFollow sees each screen once, whole, and nothing of what only moves.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simulator.New(lcd.Model635)
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan struct{})
		go func() {
			followDisplay(ctx, sim, func(s simulator.Screen) { got = append(got, strings.TrimRight(s.String(), "\n")) })
			close(done)
		}()
		pass := func(d time.Duration) {
			time.Sleep(d) // of the bubble
			synctest.Wait()
		}
		pass(time.Second)
		obey(t, sim, row(0, "restore         7/14"))
		pass(50 * time.Millisecond)
		obey(t, sim, row(1, "Writing release"))
		pass(time.Second)
		for range 10 {
			obey(t, sim, row(3, "45 %   0:35 |"))
			pass(time.Second)
			obey(t, sim, row(3, "46 %   0:34 /"))
			pass(time.Second)
		}
		obey(t, sim, lcd.Packet{Command: lcd.CmdClear})
		pass(time.Second)
		cancel()
		<-done
		want := []string{"Crystalfontz 635", "restore         7/14\nWriting release", ""}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
