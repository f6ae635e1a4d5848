package bmc

import (
	"encoding/hex"
	"errors"
	"net"
	"testing"
)

// TestCode holds the authentication code of RAKP 2 against those that other implementations sent for the user ADMIN with the password
// ADMIN: number 17 go-ipmi 0.9.1, number 3 that and OpenIPMI 2.0.33.
func TestCode(t *testing.T) {
	console, random := []byte{0xa1, 0xa2, 0xa3, 0xa4}, []byte("sixteen random b")
	role := append([]byte{0x14, 5}, "ADMIN"...)
	for _, tc := range []struct {
		suite               int // its place among those that are tried
		managed, rest, code string
	}{
		{0, "81cba7d6", "aea364ff51e84c0c2cc8fa2b94123d05676f2d69706d692d6532650000000000",
			"5d1fa13a7996591b24999c69d574cabbbe807aff03d8f83e173013ac530c2db7"},
		{1, "7a010039", "8165baf53c08aaeba29569b27c528aa4676f2d69706d692d6532650000000000", "811e1d2cc1ac4546ee60409e788f3e84b4e23e5e"},
		{1, "02000000", "0ea4e2ca23585f5d4b8dd3e7e8737cb5a123456789abcdefa123456789abcdef", "11696fbf2aeb11f9554533b6a462e226bc963336"},
	} {
		managed, err := hex.DecodeString(tc.managed)
		rest, err2 := hex.DecodeString(tc.rest)
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		got := suites()[tc.suite].code("ADMIN", console, managed, random, rest[:16], rest[16:], role)
		if hex.EncodeToString(got) != tc.code {
			t.Errorf("session %s: %x, want %s", tc.managed, got, tc.code)
		}
	}
}

// TestImpostor: somebody at the controller's address who takes every login, and does not know the password, is not the controller.
func TestImpostor(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		buf, console := make([]byte, 1500), make([]byte, 4)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil || n < 24 {
				return
			}
			answer := append([]byte(nil), buf[:16]...)
			answer[5]++
			payload := make([]byte, 72)
			payload[0] = buf[16]
			if answer[5] == openResponse {
				copy(console, buf[20:24])
				copy(payload[12:], buf[24:n]) // the algorithms
			}
			copy(payload[4:], console)
			answer[14] = byte(len(payload))
			_, _ = c.WriteTo(append(answer, payload...), from)
		}
	}()
	if err := loginAt(t.Context(), c.LocalAddr().String(), "operator", "x"); !errors.Is(err, ErrPassword) {
		t.Errorf("it passes for the controller: %v", err)
	}
}
