package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/model/secret"
)

// ServerConfig says how gprov serve is started.
type ServerConfig struct {
	// Program is the gprov command; empty: this program itself.
	Program string
	// Data is the server's data directory.
	Data string
	// Password is the operator's, for the login admin. Empty: the server's own business, and the methods that ask the server
	// as an operator do not work.
	Password secret.Secret
	// Proxy makes it a proxyDHCP server beside another DHCP server, which must be there.
	Proxy bool
	// Args are further arguments.
	Args []string
	// Log gets what the server prints; nil: DATA/serve.log.
	Log io.Writer
}

// serverPort is the port of the page and of /v1, serverRange the addresses that a server with DHCP of its own gives out.
const (
	serverPort  = "8443"
	serverRange = "10.77.0.100-10.77.0.199"
)

// Server is a gprov serve that runs inside a Network. Stop it.
type Server struct {
	// Page is the address of its page inside the Network, host:port; see Network.Forward.
	Page string

	c    ServerConfig
	proc *process
	http *http.Client
	out  *readyLine
	log  *os.File
}

// StartServer starts gprov serve on the Bridge of n and waits until it is ready.
func StartServer(ctx context.Context, log *slog.Logger, n *Network, c ServerConfig) (_ *Server, err error) {
	if c.Program == "" {
		if c.Program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find own program: %w", err)
		}
	}
	s := &Server{c: c, Page: net.JoinHostPort(ServerAddr.Addr().String(), serverPort)}
	if c.Log == nil {
		s.log, err = os.OpenFile(filepath.Join(c.Data, "serve.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the server's log: %w", err)
		}
		c.Log = s.log
	}
	args := append([]string{"serve", "--data", c.Data, "--interface", Bridge}, c.Args...)
	if !slices.ContainsFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--dhcp-range") }) && !c.Proxy {
		args = append(args, "--dhcp-range", serverRange)
	}
	if !c.Password.Empty() {
		file := filepath.Join(c.Data, "admin.password")
		if err := os.WriteFile(file, []byte(c.Password.Reveal()+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("set the operator's password: %w", err)
		}
		args = append(args, "--admin-password-file", file)
	}
	s.out = &readyLine{to: c.Log, seen: make(chan struct{})}
	p := program{name: c.Program, args: args, out: s.out}
	if s.proc, err = n.start(p); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, 60*time.Second, errors.New("it is not ready within 60 seconds"))
	defer cancel()
	select {
	case <-s.out.seen:
	case <-s.proc.done:
		return nil, fmt.Errorf("gprov serve ended: %w: %s", s.proc.err, s.out.tail())
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for gprov serve: %w: %s", context.Cause(ctx), s.out.tail())
	}
	ca, err := os.ReadFile(filepath.Join(c.Data, api.CAFile))
	if err != nil {
		return nil, fmt.Errorf("read the server's CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	s.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{Protocols: protocols, DialContext: n.Dial, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return s, nil
}

// Stop ends the server, politely first. It may be repeated.
func (s *Server) Stop() {
	s.proc.interrupt()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if s.proc.wait(ctx); ctx.Err() != nil {
		s.proc.kill()
	}
	if s.log != nil {
		_ = s.log.Close()
	}
}

// Kill ends the server at once, as a power cut does.
func (s *Server) Kill() { s.proc.kill() }

// Log returns the last lines that the server printed.
func (s *Server) Log() string { return s.out.tail() }

// Units returns all units that the server knows.
func (s *Server) Units(ctx context.Context) ([]api.UnitView, error) {
	var out struct{ Units []api.UnitView }
	err := s.ask(ctx, http.MethodGet, "/v1/units", nil, &out)
	return out.Units, err
}

// Unit returns one unit with all that the server knows of it.
func (s *Server) Unit(ctx context.Context, unit string) (api.Detail, error) {
	var out api.Detail
	err := s.ask(ctx, http.MethodGet, "/v1/units/"+url.PathEscape(unit), nil, &out)
	return out, err
}

// Events returns the newest events of a unit, the newest first.
func (s *Server) Events(ctx context.Context, unit string) ([]store.Event, error) {
	var out struct{ Events []store.Event }
	err := s.ask(ctx, http.MethodGet, "/v1/units/"+url.PathEscape(unit)+"/events?limit=1000", nil, &out)
	return out.Events, err
}

// Release allows a unit to be provisioned once more.
func (s *Server) Release(ctx context.Context, unit string) error {
	return s.ask(ctx, http.MethodPost, "/v1/units/"+url.PathEscape(unit)+"/release", struct{}{}, nil)
}

// Approve lets a unit in with the key of that fingerprint, as an operator does who has compared it with the unit's panel.
func (s *Server) Approve(ctx context.Context, unit, fingerprint string) error {
	d, err := s.Unit(ctx, unit)
	if err != nil {
		return err
	}
	for _, e := range d.Enrolments {
		if e.Status == store.Pending && e.Fingerprint == fingerprint {
			path := fmt.Sprintf("/v1/units/%s/enrolments/%d/approve", url.PathEscape(unit), e.ID)
			return s.ask(ctx, http.MethodPost, path, api.ApproveRequest{Fingerprint: fingerprint}, nil)
		}
	}
	return fmt.Errorf("no key %s of the unit %s waits for approval", fingerprint, unit)
}

// ReadCredentials returns the newest confirmed credentials of a unit, still encrypted to the operators. The server records it.
func (s *Server) ReadCredentials(ctx context.Context, unit string) (store.Secret, error) {
	var out store.Secret
	err := s.ask(ctx, http.MethodPost, "/v1/units/"+url.PathEscape(unit)+"/credentials/read", api.ReadRequest{}, &out)
	return out, err
}

func (s *Server) ask(ctx context.Context, method, path string, body, into any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ask the server for %s: %w", path, err)
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://"+s.Page+path, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("ask the server for %s: %w", path, err)
	}
	r.SetBasicAuth(login.Admin, s.c.Password.Reveal())
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := s.http.Do(r)
	if err != nil {
		return fmt.Errorf("ask the server for %s: %w", path, err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 32<<20))
	if err != nil {
		return fmt.Errorf("ask the server for %s: %w", path, err)
	}
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the server for %s: %s: %s", path, a.Status, lastLines(string(text), 3))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read the server's answer to %s: %w", path, err)
	}
	return nil
}

// readyLine passes output on and waits for the line that says that the server is ready.
type readyLine struct {
	to   io.Writer
	seen chan struct{}

	mu   sync.Mutex
	last []byte
	done bool
}

func (r *readyLine) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.last = append(r.last, p...)
	if len(r.last) > 64<<10 {
		r.last = r.last[len(r.last)-32<<10:]
	}
	if !r.done {
		for line := range strings.Lines(string(r.last)) {
			if strings.HasSuffix(line, "\n") && strings.HasPrefix(line, "ready ") && !r.done {
				r.done = true
				close(r.seen)
			}
		}
	}
	r.mu.Unlock()
	return r.to.Write(p)
}

func (r *readyLine) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return lastLines(string(r.last), 8)
}
