package limit

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the connections of a Listener.
const (
	// MaxConns is how many connections there are at most.
	MaxConns = 1024
	// MaxConnsPerHost is how many of them are of one address.
	MaxConnsPerHost = 64
	// Stall is how long a piece of an answer may take to leave. A piece is at most 256 KiB.
	Stall = 30 * time.Second
)

const piece = 256 << 10

// Listener bounds the connections of another listener, in number and in time: who takes nothing of what was sent to him for Stall is cut
// off, and so is the oldest connection of an address that opens too many, or, where there are too many in all, of the address that has most.
type Listener struct {
	net.Listener
	max, perHost int
	stall        time.Duration

	mu    sync.Mutex
	conns []*conn // oldest first
}

// NewListener returns a Listener with the usual bounds.
func NewListener(l net.Listener) *Listener {
	return &Listener{Listener: l, max: MaxConns, perHost: MaxConnsPerHost, stall: Stall}
}

// Accept returns the next connection.
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

// victim returns the connection that has to go, or nil.
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

// conn is a connection whose writes end.
type conn struct {
	net.Conn
	l      *Listener
	host   string
	closed atomic.Bool
}

// Close closes the connection and gives back its place.
func (c *conn) Close() error {
	if !c.closed.Swap(true) {
		c.l.gone(c)
	}
	return c.Conn.Close()
}

// CloseWrite ends the sending half, as the server does before it lets go of who still sends.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SetWriteDeadline does nothing: each piece has its own.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets that of reading.
func (c *conn) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// Write sends in pieces, each of which has to leave in time.
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

// ReadFrom sends what r has left, in pieces that the kernel copies by itself if r is a file.
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
