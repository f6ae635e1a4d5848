package limit

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the connections of a Listener.
const (
	// MaxConns is the maximum number of connections.
	MaxConns = 1024
	// MaxConnsPerHost is the maximum number of connections from one address.
	MaxConnsPerHost = 64
	// Stall is how long it may take to send a piece of an answer, at most 256 KiB.
	Stall = 30 * time.Second
)

const piece = 256 << 10

// Listener limits the connections of another listener. It cuts off a client that accepts no data for Stall. If an
// address has too many connections, it closes the oldest of them. If there are too many in total, it closes the
// oldest one of the address with the most.
type Listener struct {
	net.Listener
	max, perHost int
	stall        time.Duration

	mu    sync.Mutex
	conns []*conn // oldest first
}

// NewListener returns a Listener with the usual limits.
func NewListener(l net.Listener) *Listener {
	return &Listener{Listener: l, max: MaxConns, perHost: MaxConnsPerHost, stall: Stall}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, l: l, host: Remote(nc.RemoteAddr().String())}
	l.mu.Lock()
	l.conns = append(l.conns, c)
	victim := l.victim(c.host)
	l.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	return c, nil
}

// victim returns the connection that must be closed, or nil.
func (l *Listener) victim(newest string) *conn {
	count := map[string]int{}
	for _, c := range l.conns {
		count[c.host]++
	}
	host := newest
	if count[newest] <= l.perHost {
		if len(l.conns) <= l.max {
			return nil
		}
		for h, n := range count {
			if n > count[host] {
				host = h
			}
		}
	}
	for _, c := range l.conns {
		if c.host == host {
			return c
		}
	}
	return nil
}

func (l *Listener) gone(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.conns {
		if o == c {
			l.conns = append(l.conns[:i], l.conns[i+1:]...)
			return
		}
	}
}

// conn is a connection whose writes have a time limit.
type conn struct {
	net.Conn
	l      *Listener
	host   string
	closed atomic.Bool
}

// Close closes the connection and frees its place.
func (c *conn) Close() error {
	if !c.closed.Swap(true) {
		c.l.gone(c)
	}
	return c.Conn.Close()
}

// CloseWrite closes the sending half. The HTTP server does so before it drops a client that still sends.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SetWriteDeadline does nothing: each piece has its own.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets the deadline of reading only.
func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// Write sends p in pieces. Stall limits the time for each.
func (c *conn) Write(p []byte) (int, error) {
	n := 0
	for {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.l.stall)); err != nil {
			return n, err
		}
		k, err := c.Conn.Write(p[:min(len(p), piece)])
		n, p = n+k, p[k:]
		if err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// ReadFrom sends the rest of r in pieces. If r is a file, the kernel copies them.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	src, limited := r, int64(-1)
	if lr, ok := r.(*io.LimitedReader); ok {
		src, limited = lr.R, lr.N
	}
	to, ok := c.Conn.(io.ReaderFrom)
	if _, file := src.(*os.File); !ok || !file {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	var n int64
	for limited != 0 {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.l.stall)); err != nil {
			return n, err
		}
		want := int64(piece)
		if limited > 0 {
			want = min(want, limited)
		}
		k, err := to.ReadFrom(&io.LimitedReader{R: src, N: want})
		n += k
		if limited > 0 {
			limited -= k
			r.(*io.LimitedReader).N = limited
		}
		if err != nil || k < want {
			return n, err
		}
	}
	return n, nil
}
