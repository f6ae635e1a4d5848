package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Bridge is the name of the interface to which all units of a Network are plugged, and on which its server listens.
const Bridge = "br0"

// ServerAddr is the address of the Bridge, and so of the server, with the length of the station's prefix.
var ServerAddr = netip.MustParsePrefix("10.77.0.1/24")

// Network is a station: a network namespace with a bridge. It has no way out. Several may exist at once. Close it.
type Network struct {
	// Accel says how the processors of its units run.
	Accel Accel

	log   *slog.Logger
	ns    netns.NsHandle
	nl    *netlink.Handle
	calls chan func() // run on the thread of the namespace; nil channel value ends it

	mu      sync.Mutex
	closed  bool
	closers []io.Closer // listeners of Forward
	ended   chan struct{}
}

// Usable says why no Network can be made here, or returns nil.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("virtual units need root, for a network namespace and tap devices")
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("virtual units need tap devices: %w", err)
	}
	return f.Close()
}

// NewNetwork makes a namespace with a bridge that has ServerAddr, and finds out whether KVM can be used.
func NewNetwork(ctx context.Context, log *slog.Logger) (*Network, error) {
	if err := Usable(); err != nil {
		return nil, err
	}
	accel, err := ProbeAccel(ctx, log)
	if err != nil {
		return nil, err
	}
	n := &Network{Accel: accel, log: log, calls: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go n.thread(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	if err := n.wire(); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

// thread owns the operating system's thread from which programs of the namespace are started. They die with it.
func (n *Network) thread(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	defer close(n.ended)
	ns, err := netns.New()
	if err != nil {
		ready <- fmt.Errorf("make network namespace: %w", err)
		return
	}
	n.ns = ns
	ready <- nil
	for f := range n.calls {
		f()
	}
}

// do runs f on the thread of the namespace. f must not block for long.
func (n *Network) do(f func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.New("the network is closed")
	}
	var err error
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

func (n *Network) wire() error {
	nl, err := netlink.NewHandleAt(n.ns)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	n.nl = nl
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raise loopback: %w", err)
	}
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Bridge}}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ServerAddr.Addr().AsSlice(), Mask: net.CIDRMask(ServerAddr.Bits(), 32)}}
	if err := nl.AddrAdd(br, addr); err != nil {
		return fmt.Errorf("set address of bridge: %w", err)
	}
	if err := nl.LinkSetUp(br); err != nil {
		return fmt.Errorf("raise bridge: %w", err)
	}
	return nil
}

// plug makes a tap device on the bridge. The caller closes the file.
func (n *Network) plug() (*os.File, error) {
	var f *os.File
	err := n.do(func() error {
		tap, name, err := openTap()
		if err != nil {
			return err
		}
		if err := n.join(name); err != nil {
			_ = tap.Close()
			return err
		}
		f = tap
		return nil
	})
	return f, err
}

func (n *Network) join(name string) error {
	br, err := n.nl.LinkByName(Bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	tap, err := n.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find tap device %s: %w", name, err)
	}
	if err := n.nl.LinkSetMasterByIndex(tap, br.Attrs().Index); err != nil {
		return fmt.Errorf("put %s on the bridge: %w", name, err)
	}
	if err := n.nl.LinkSetUp(tap); err != nil {
		return fmt.Errorf("raise %s: %w", name, err)
	}
	return nil
}

// start starts a program inside the namespace.
func (n *Network) start(p program) (*process, error) {
	var r *process
	err := n.do(func() (err error) {
		r, err = start(p)
		return err
	})
	return r, err
}

// Dial connects to an address inside the namespace, which is an IP address with a port. It has the shape of
// net.Dialer.DialContext.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.visit(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Visit runs f on a thread that is inside the namespace: sockets that f opens in its own goroutine belong there. f must not
// start programs.
func (n *Network) Visit(f func() error) error { return n.visit(f) }

func (n *Network) visit(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- fmt.Errorf("find own network namespace: %w", err)
			return // the thread ends
		}
		defer home.Close()
		if err := netns.Set(n.ns); err != nil {
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Forward makes a TCP address inside the namespace reachable at a port of the host's loopback and returns that address.
// It ends with Close. port 0: any free one.
func (n *Network) Forward(target string, port int) (string, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", fmt.Errorf("listen on loopback: %w", err)
	}
	n.mu.Lock()
	n.closers = append(n.closers, l)
	n.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go n.relay(c, target)
		}
	}()
	return l.Addr().String(), nil
}

func (n *Network) relay(out net.Conn, target string) {
	defer out.Close()
	in, err := n.Dial(context.Background(), "tcp", target)
	if err != nil {
		n.log.Debug("nobody answers in the station", "address", target, "error", err)
		return
	}
	defer in.Close()
	var both sync.WaitGroup
	both.Go(func() { pump(in, out) })
	both.Go(func() { pump(out, in) })
	both.Wait()
}

// pump copies until the end and passes the end on.
func pump(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	if c, ok := dst.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// Close ends every program inside the namespace and the namespace with it. It may be repeated.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	for _, c := range n.closers {
		_ = c.Close()
	}
	n.mu.Unlock()
	close(n.calls)
	<-n.ended
	if n.nl != nil {
		n.nl.Close()
	}
	if err := n.ns.Close(); err != nil {
		return fmt.Errorf("close network namespace: %w", err)
	}
	return nil
}
