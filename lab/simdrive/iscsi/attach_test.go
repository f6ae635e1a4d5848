package iscsi

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The requests to the kernel's initiator (linux/include/scsi/iscsi_if.h, which is not among the headers for programs).
const (
	createSession    = 11
	createConnection = 13
	bindConnection   = 15
	setParameter     = 16
	startConnection  = 17
	isError          = 103
)

// eventSize is the length of struct iscsi_uevent: kind, error, handle, request at 16, answer at 40.
const eventSize = 56

// kernel is the kernel's side: its netlink socket and the handle of the transport over TCP.
type kernel struct {
	fd     int
	handle uint64
}

// ask sends a request and returns the answer's part of it.
func (k kernel) ask(kind uint16, text string, words ...uint32) ([]byte, error) {
	e := make([]byte, unix.NLMSG_HDRLEN+eventSize, unix.NLMSG_HDRLEN+eventSize+len(text)+1)
	event := e[unix.NLMSG_HDRLEN:]
	binary.NativeEndian.PutUint32(event, uint32(kind))
	binary.NativeEndian.PutUint64(event[8:], k.handle)
	for i, w := range words {
		binary.NativeEndian.PutUint32(event[16+4*i:], w)
	}
	e = append(append(e, text...), 0)
	binary.NativeEndian.PutUint32(e, uint32(len(e)))
	binary.NativeEndian.PutUint16(e[4:], kind)
	binary.NativeEndian.PutUint16(e[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(k.fd, e, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("request %d: %w", kind, err)
	}
	for {
		b := make([]byte, 4096)
		n, _, err := unix.Recvfrom(k.fd, b, 0)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", kind, err)
		}
		if n < unix.NLMSG_HDRLEN+eventSize {
			continue
		}
		a := b[unix.NLMSG_HDRLEN:n]
		switch binary.NativeEndian.Uint32(a) {
		case isError:
			return nil, fmt.Errorf("request %d: error %d", kind, int32(binary.NativeEndian.Uint32(a[4:])))
		case uint32(kind):
			return a[40:], nil
		}
	}
}

// attach gives the kernel of this machine a session with a target, and returns the number of its SCSI host. It must be root.
func attach(addr *net.TCPAddr, target string) (host int, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ISCSI)
	if err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	b, err := os.ReadFile("/sys/class/iscsi_transport/tcp/handle")
	if err != nil {
		return 0, err
	}
	handle, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, err
	}
	// The socket is none of Go's network, which would go on watching it.
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(sock, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	// A kernel sends a header and its data apart, and the second would wait for the first to be acknowledged.
	if err := unix.SetsockoptInt(sock, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return 0, err
	}
	s, err := login(blocking(sock), "iqn.2026-11.test:kernel", target)
	if err != nil {
		return 0, err
	}
	k := kernel{fd, handle}
	a, err := k.ask(createSession, "", s.cmdSN, 32|32<<16) // commands, and those of each unit
	if err != nil {
		return 0, err
	}
	sid := binary.NativeEndian.Uint32(a)
	host = int(binary.NativeEndian.Uint32(a[4:]))
	if _, err := k.ask(createConnection, "", sid, 0); err != nil {
		return 0, err
	}
	if a, err = k.ask(bindConnection, "", sid, 0, uint32(sock), 0, 1); err != nil {
		return 0, err
	} else if n := int32(binary.NativeEndian.Uint32(a)); n != 0 {
		return 0, fmt.Errorf("bind: %d", n)
	}
	for i, v := range []uint32{maxReceive, maxReceive, 0, 0, 1, 1, 1, firstBurst, maxBurst, 1, 1, 0} { // in the order of enum iscsi_param
		if _, err := k.ask(setParameter, fmt.Sprint(v), sid, 0, uint32(i), uint32(len(fmt.Sprint(v))+1)); err != nil {
			return 0, fmt.Errorf("parameter %d: %w", i, err)
		}
	}
	for i, v := range map[uint32]string{14: fmt.Sprint(s.expStatSN), 15: target, 16: "1"} {
		if _, err := k.ask(setParameter, v, sid, 0, i, uint32(len(v)+1)); err != nil {
			return 0, fmt.Errorf("parameter %d: %w", i, err)
		}
	}
	if a, err = k.ask(startConnection, "", sid, 0); err != nil {
		return 0, err
	} else if n := int32(binary.NativeEndian.Uint32(a)); n != 0 {
		return 0, fmt.Errorf("start: %d", n)
	}
	return host, nil
}

// blocking is a socket that is read and written by system calls alone.
type blocking int

func (b blocking) Read(p []byte) (int, error) {
	n, err := unix.Read(int(b), p)
	if n == 0 && err == nil && len(p) > 0 {
		return 0, io.EOF
	}
	return max(0, n), err
}

func (b blocking) Write(p []byte) (int, error) { return unix.Write(int(b), p) }
