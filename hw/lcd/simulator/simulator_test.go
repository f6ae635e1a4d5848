package simulator_test

import (
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// TestWire speaks with the simulator in bytes as they are on the wire of real displays, without the library.
func TestWire(t *testing.T) {
	s := simulator.New(lcd.Model635)
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Serve(theirs) }()
	if err := ours.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	// says reads a packet that begins so. Its checksum is by the rule, which the vectors of package lcd prove.
	says := func(head string) {
		t.Helper()
		want, err := hex.DecodeString(head)
		if err != nil {
			t.Fatal(err)
		}
		crc := lcd.CRC(want)
		want = append(want, byte(crc), byte(crc>>8))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(ours, got); err != nil || string(got) != string(want) {
			t.Errorf("it says %x, %v, want %x", got, err, want)
		}
	}
	for _, x := range [][2]string{
		{"0008010203040506070815f2", "40080102030405060708"}, // ping
		{"0600975b", "4600"},               // clear
		{"1702003f9214", "5700"},           // report releases
		{"1f07000068656c6c6f9fbf", "5f00"}, // write "hello"
		{"2001002fdc", "e000"},             // a legend: the 635 has none
		{"0e01329edd", "4e00"},             // half of the light
		{"18001654", "5803000000"},         // poll keys
		{"ff0e01329eff0e01329edd", "4e00"}, // noise, a damaged packet, and a good one
	} {
		b, err := hex.DecodeString(x[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write(b); err != nil {
			t.Fatal(err)
		}
		says(x[1])
	}
	if sc := s.Screen(); sc.Lines()[0] != "hello" || sc.Backlight != 50 || sc.PressMask != 0 || sc.RelMask != 0x3f {
		t.Errorf("it shows %q, %+v", sc.Lines(), sc)
	}
	go s.Tap(lcd.KeyUp)
	says("800107")
	ours.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
