package lcd_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/creack/pty"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// A simulated LCD behind a real line discipline of the kernel.
func TestPort(t *testing.T) {
	ours, tty, err := pty.Open()
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer ours.Close()
	name := tty.Name()
	s := simulator.New(lcd.Model635)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ours) }()

	port, from, err := lcd.Dialer(nil, name[len("/dev/"):])(t.Context())
	if err != nil || from != name {
		t.Fatalf("%q, %v", from, err)
	}
	if _, err := lcd.OpenPort(name); !errors.Is(err, lcd.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	c, err := lcd.Connect(t.Context(), port, lcd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// All bytes go through, those that a terminal gives a meaning to also.
	var text []byte
	for b := range 256 {
		text = append(text, byte(b))
	}
	for len(text) > 0 {
		n := min(len(text), lcd.Columns)
		if err := c.Write(t.Context(), 0, 0, text[:n]); err != nil {
			t.Fatal(err)
		}
		if got := s.Screen().Cells[0][:n]; string(got) != string(text[:n]) {
			t.Errorf("got % x, want % x", got, text[:n])
		}
		text = text[n:]
	}
	if err := c.ReportKeys(t.Context(), 0, 0x3f); err != nil {
		t.Fatal(err)
	}
	s.Tap(lcd.KeyEnter)
	if e := <-c.Keys(); e.Key != lcd.KeyEnter || !e.Release {
		t.Errorf("got %+v", e)
	}
	began := time.Now()
	if err := c.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("close: %v after %v", err, time.Since(began))
	}
	if again, err := lcd.OpenPort(name); err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		again.Close()
	}
	tty.Close()
	if err := <-served; err != nil && !errors.Is(err, io.EOF) {
		t.Logf("the simulator ended: %v", err) // a pty says so with EIO
	}
	if _, err := lcd.OpenPort("/dev/no-such-port"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no port: %v", err)
	}
}
