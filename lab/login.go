package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/ssh"

	"gprovision/factory/vault"
	"gprovision/model/secret"
)

// FindUnit returns the address that the machine with a MAC address has on the network. It asks all addresses until the
// machine answers at one, or ctx ends.
func (n *Network) FindUnit(ctx context.Context, mac string) (netip.Addr, error) {
	br, err := n.nl.LinkByName(Bridge)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find bridge: %w", err)
	}
	for {
		list, err := n.nl.NeighList(br.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("read neighbours: %w", err)
		}
		const alive = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
		for _, e := range list {
			if addr, ok := netip.AddrFromSlice(e.IP.To4()); ok && e.State&alive != 0 && strings.EqualFold(e.HardwareAddr.String(), mac) {
				return addr, nil
			}
		}
		if err := n.visit(stir); err != nil {
			return netip.Addr{}, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("find machine %s on the network: %w", mac, context.Cause(ctx))
		}
	}
}

// stir sends something to every address, so that the kernel asks who has it.
func stir() error {
	c, err := net.ListenPacket("udp4", netip.AddrPortFrom(ServerAddr.Addr(), 0).String())
	if err != nil {
		return fmt.Errorf("look for machines: %w", err)
	}
	defer c.Close()
	for a := ServerAddr.Masked().Addr().Next(); ServerAddr.Contains(a.Next()); a = a.Next() {
		if a != ServerAddr.Addr() {
			_, _ = c.WriteTo([]byte{0}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9))) // discard
		}
	}
	return nil
}

// Session is a login by SSH. Close it.
type Session struct{ client *ssh.Client }

// Login logs in by SSH with a password, and tries again until sshd answers or ctx ends. A password that is refused is an
// error at once. Any host key is accepted: the machine made it a moment ago, and nobody else is on the network.
func (n *Network) Login(ctx context.Context, addr netip.Addr, user string, password secret.Secret) (*Session, error) {
	target := netip.AddrPortFrom(addr, 22).String()
	for {
		c, err := n.login(ctx, target, user, password)
		if err == nil {
			return &Session{c}, nil
		}
		if strings.Contains(err.Error(), "unable to authenticate") {
			return nil, fmt.Errorf("log in as %s at %s: %w", user, target, err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, fmt.Errorf("log in as %s at %s: %w: %w", user, target, context.Cause(ctx), err)
		}
	}
}

func (n *Network) login(ctx context.Context, target, user string, password secret.Secret) (*ssh.Client, error) {
	dial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := n.Dial(dial, "tcp", target)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(conn, target, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.Password(password.Reveal())}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return ssh.NewClient(c, channels, requests), nil
}

// Sudo is Run as root: sudo gets the password of the user on its standard input.
func (s *Session) Sudo(ctx context.Context, password secret.Secret, command string) (string, error) {
	return s.run(ctx, "sudo -S -p '' sh -c "+quote(command), password.Reveal()+"\n")
}

// Run runs a command and returns what it printed, without white space around it. A command that ends with another status
// than 0 is an error with what it printed.
func (s *Session) Run(ctx context.Context, command string) (string, error) {
	return s.run(ctx, command, "")
}

func (s *Session) run(ctx context.Context, command, input string) (string, error) {
	session, err := s.client.NewSession()
	if err != nil {
		return "", fmt.Errorf("run %q: %w", command, err)
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	session.Stdin = strings.NewReader(input)
	out, err := session.CombinedOutput(command)
	text := strings.TrimSpace(string(out))
	if ctx.Err() != nil {
		return text, fmt.Errorf("run %q: %w", command, context.Cause(ctx))
	}
	if err != nil {
		return text, fmt.Errorf("run %q: %w: %s", command, err, lastLines(text, 5))
	}
	return text, nil
}

// Close logs out.
func (s *Session) Close() error { return s.client.Close() }

// NewPassword makes a password for the operator of a Server.
func NewPassword() (secret.Secret, error) { return vault.Password(16, "") }
