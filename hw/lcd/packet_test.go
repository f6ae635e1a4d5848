package lcd_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"gprovision/hw/lcd"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCRC(t *testing.T) {
	for in, want := range map[string]string{ // as on the wire, low byte first
		"\x03\x3f": "5bec", "\x01\x73": "8357", "\x01\x3f": "ebdf", "\x03\x73": "3364",
		"123456789": "6e90", "This is a test. ": "78e4", "\x0a\x05abcde": "72a7",
	} {
		crc := lcd.CRC([]byte(in))
		if got := hex.EncodeToString([]byte{byte(crc), byte(crc >> 8)}); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// packets are frames as they are on the wire of real LCDs.
var packets = []struct {
	p    lcd.Packet
	wire string
}{
	{lcd.Packet{Command: lcd.CmdVersion}, "01009f16"},
	{lcd.Packet{Command: lcd.CmdStatus}, "1e00c600"},
	{lcd.Packet{Command: lcd.CmdClear}, "0600975b"},
	{lcd.Packet{Command: lcd.CmdLegend, Data: []byte{0}}, "2001002fdc"},
	{lcd.Packet{Command: lcd.CmdLegend, Data: []byte{1, 3, 2, 4, 1}}, "20050103020401ac16"},
	{lcd.Packet{Command: lcd.CmdBacklight, Data: []byte{50}}, "0e01329edd"},
	{lcd.Packet{Command: lcd.CmdReportKeys, Data: []byte{0, 0x3f}}, "1702003f9214"},
	{lcd.Packet{Command: lcd.CmdCursor, Data: []byte{0, 1}}, "0b020001fa98"},
	{lcd.Packet{Command: lcd.CmdCursorStyle, Data: []byte{0}}, "0c0100b77a"},
	{lcd.Packet{Command: lcd.CmdWrite, Data: []byte("\x00\x00hello")}, "1f07000068656c6c6f9fbf"},
	{lcd.Packet{Command: lcd.CmdPing, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}}, "0008010203040506070815f2"},
	{lcd.Packet{Command: lcd.CmdPollKeys}, "18001654"},
	{lcd.Packet{Kind: lcd.Report, Command: lcd.ReportKey, Data: []byte{7}}, "80010747a7"},
	{lcd.Packet{Command: lcd.CmdContrast, Data: []byte{0xff}}, "0d01ff132f"},
}

func all() []lcd.Kind { return []lcd.Kind{lcd.Request, lcd.Reply, lcd.Report, lcd.Refusal} }

func TestPackets(t *testing.T) {
	d := lcd.Decoder{Kinds: all()}
	for _, tt := range packets {
		b, err := tt.p.Append(nil)
		if err != nil || hex.EncodeToString(b) != tt.wire {
			t.Errorf("%v: %x, %v, want %s", tt.p, b, err, tt.wire)
		}
		d.Feed(unhex(t, tt.wire))
	}
	for _, tt := range packets {
		p, ok := d.Next()
		if !ok || p.Kind != tt.p.Kind || p.Command != tt.p.Command || !bytes.Equal(p.Data, tt.p.Data) {
			t.Errorf("got %v, %v, want %v", p, ok, tt.p)
		}
	}
	for _, p := range []lcd.Packet{{Command: 0x40}, {Kind: 4}, {Data: make([]byte, lcd.MaxData+1)}} {
		if b, err := p.Append(nil); err == nil || b != nil {
			t.Errorf("%v: %x, %v", p, b, err)
		}
	}
}

// Whatever is broken, the packets around it come out.
func TestDecoderFindsItsWayBack(t *testing.T) {
	good := unhex(t, "1f07000068656c6c6f9fbf")
	for name, damage := range map[string]func([]byte) []byte{
		"flipped bit":     func(b []byte) []byte { b[5] ^= 4; return b },
		"lost byte":       func(b []byte) []byte { return append(b[:3], b[4:]...) },
		"huge length":     func(b []byte) []byte { b[1] = 'I'; return b },
		"longer":          func(b []byte) []byte { b[1] = 9; return b },
		"other kind":      func(b []byte) []byte { b[0] |= 0x40; return b },
		"noise before it": func(b []byte) []byte { return append([]byte("I0000\x00\x00"), b...) },
		"nothing":         func(b []byte) []byte { return nil },
	} {
		d := lcd.Decoder{Kinds: []lcd.Kind{lcd.Request}}
		d.Feed(good)
		d.Feed(damage(bytes.Clone(good)))
		d.Feed(good)
		d.Feed(good)
		n := 0
		for {
			if _, ok := d.Next(); !ok {
				break
			}
			n++
		}
		want := 3
		if name == "noise before it" {
			want = 4
		}
		if n != want || d.Pending() {
			t.Errorf("%s: %d packets, want %d, pending %v", name, n, want, d.Pending())
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, tt := range packets {
		b, _ := tt.p.Append(nil)
		f.Add(b, 3)
	}
	f.Add([]byte("I0000"), 1)
	f.Fuzz(func(t *testing.T, b []byte, chunk int) {
		chunk = max(1, chunk&0xff)
		d := lcd.Decoder{Kinds: all()}
		used := 0
		for rest := b; len(rest) > 0; {
			n := min(chunk, len(rest))
			d.Feed(rest[:n])
			rest = rest[n:]
			for {
				p, ok := d.Next()
				if !ok {
					break
				}
				wire, err := p.Append(nil)
				if err != nil || !bytes.Contains(b, wire) {
					t.Fatalf("%v was not in the input: %x, %v", p, wire, err)
				}
				used += len(wire)
			}
		}
		if used+d.Skipped > len(b) {
			t.Fatalf("%d bytes used and %d skipped of %d", used, d.Skipped, len(b))
		}
	})
}
