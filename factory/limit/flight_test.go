package limit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFlight fills a Flight from one side. There is still room for another.
func TestFlight(t *testing.T) {
	f := NewFlight(6, 600, 5)
	cancelled := map[string]bool{}
	enter := func(name, key string, bytes int64) (func(), func(), bool) {
		return f.Enter(key, bytes, func() { cancelled[name] = true })
	}
	if _, _, ok := enter("huge", "a", 601); ok {
		t.Error("more bytes than there are")
	}
	var received, leave []func()
	for i := range 5 {
		r, l, ok := enter(fmt.Sprint("a", i), "a", 100)
		if !ok {
			t.Fatal("no room for a", i)
		}
		received, leave = append(received, r), append(leave, l)
	}
	if _, _, ok := enter("a5", "a", 1); ok {
		t.Error("too many of one key")
	}
	received[0]() // the oldest does its work
	_, leaveB, ok := enter("b0", "b", 300)
	if !ok || !cancelled["a1"] || !cancelled["a2"] || len(cancelled) != 2 {
		t.Error("who has much does not make room:", ok, cancelled)
	}
	leave[1]() // leaving twice does no harm
	if f.held != 600 || len(f.open) != 4 {
		t.Errorf("%d bytes, %d calls", f.held, len(f.open))
	}
	if _, _, ok := enter("c0", "c", 400); ok {
		t.Error("room although those who have more cannot go")
	}
	for _, l := range append(leave, leaveB) {
		l()
	}
	for _, c := range f.open {
		if c.key != "c" {
			t.Errorf("%s is left", c.key)
		}
	}
	if f.held < 0 {
		t.Error(f.held)
	}
}

func listen(t *testing.T, max, perHost int, stall time.Duration) *Listener {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(nl)
	l.max, l.perHost, l.stall = max, perHost, stall
	t.Cleanup(func() { l.Close() })
	return l
}

// pair connects to l and returns both ends.
func pair(t *testing.T, l *Listener) (server, client net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

// TestConnections opens more connections than one address may have. The oldest is closed, and the newest works.
func TestConnections(t *testing.T) {
	l := listen(t, 100, 3, time.Minute)
	var clients, servers []net.Conn
	for range 5 {
		s, c := pair(t, l)
		servers, clients = append(servers, s), append(clients, c)
	}
	for i, c := range clients {
		if i >= 2 {
			if _, err := servers[i].Write([]byte("x")); err != nil {
				t.Error(i, err)
			}
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Read(make([]byte, 1))
		if open := err == nil; open != (i >= 2) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if len(l.conns) != 3 {
		t.Errorf("%d connections are counted", len(l.conns))
	}
	for _, s := range servers {
		s.Close()
		s.Close()
	}
	if len(l.conns) != 0 {
		t.Errorf("%d connections are counted at the end", len(l.conns))
	}
}

// TestManyConnections: the address with the most connections loses one.
func TestManyConnections(t *testing.T) {
	l := &Listener{max: 4, perHost: 3}
	for i, h := range []string{"a", "b", "b", "b", "c"} {
		l.conns = append(l.conns, &conn{host: h})
		if v := l.victim(h); (v != nil) != (i == 4) || v != nil && v != l.conns[1] {
			t.Errorf("%d: %v", i, v)
		}
	}
}

// TestSlowReader requests a lot and reads nothing. The server is not held up for longer than a stall. A client that
// reads slowly but steadily gets everything.
func TestSlowReader(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, big, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, send := range map[string]func(w net.Conn) error{
		"memory": func(w net.Conn) error { _, err := w.Write(big); return err },
		"file": func(w net.Conn) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			lr := &io.LimitedReader{R: f, N: int64(len(big))}
			n, err := w.(io.ReaderFrom).ReadFrom(lr)
			if err == nil && (n != int64(len(big)) || lr.N != 0) {
				err = fmt.Errorf("%d bytes were sent, %d are left", n, lr.N)
			}
			return err
		},
	} {
		s, _ := pair(t, listen(t, 10, 10, 200*time.Millisecond))
		s.SetWriteDeadline(time.Now().Add(time.Hour))
		began := time.Now()
		if err := send(s); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 10*time.Second {
			t.Errorf("%s: a reader that takes nothing: %v after %v", name, err, time.Since(began))
		}
		s, c := pair(t, listen(t, 10, 10, 10*time.Second))
		got := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(c)
			got <- b
		}()
		err := send(s)
		s.Close()
		if b := <-got; err != nil || !bytes.Equal(b, big) {
			t.Errorf("%s: a reader got %d bytes: %v", name, len(b), err)
		}
	}
}
