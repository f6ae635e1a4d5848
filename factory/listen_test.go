package factory

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gprovision/factory/guard"
)

// brokenListener panics at its first connection.
type brokenListener struct {
	net.Listener
	broke chan struct{}
}

func (b *brokenListener) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.Close()
	close(b.broke)
	panic("accepting is out of order")
}

// TestServiceAgain: an HTTP service whose loop panics answers on the same port again, and the first page says so.
func TestServiceAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, broke := l.Addr().String(), make(chan struct{})
	log := slog.New(slog.DiscardHandler)
	group := guard.NewGroup(log)
	first := true
	around := func(l net.Listener) net.Listener {
		if first {
			first = false
			return &brokenListener{l, broke}
		}
		return l
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		here := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
		done <- group.Run(ctx, httpService("HTTP", log, l, around, here))
	}()
	if _, err := http.Get("http://" + address); err == nil {
		t.Error("the broken service answers")
	}
	<-broke
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := http.Get("http://" + address)
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != "here" {
				t.Errorf("%q", b)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not started again:", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if p := group.Problems(); len(p) != 1 || !strings.Contains(p[0], "HTTP") {
		t.Error(p)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
