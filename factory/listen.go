package factory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"gprovision/factory/api"
	"gprovision/factory/guard"
	"gprovision/factory/limit"
	"gprovision/factory/netboot"
	"gprovision/factory/web"
)

// listenTCP opens a port. 0 means any free one.
func listenTCP(a netip.Addr, port int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(a.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, kind{err, ErrPort}
	}
	return l, nil
}

// listen opens the HTTP port of the station, and the HTTPS port on each address of the configuration.
func (s *Server) listen(c Config) (open net.Listener, crypt []net.Listener, err error) {
	station := s.Station.Addr()
	add := func(a netip.Addr, port int) (net.Listener, uint16, error) {
		l, err := listenTCP(a, port)
		if err != nil {
			return nil, 0, err
		}
		s.onEnd = append(s.onEnd, func() { l.Close() })
		return l, uint16(l.Addr().(*net.TCPAddr).Port), nil
	}
	open, port, err := add(station, c.HTTPPort)
	if err != nil {
		return nil, nil, err
	}
	s.HTTP = netip.AddrPortFrom(station, port)
	addrs, err := c.httpsAddresses(station)
	if err != nil {
		return nil, nil, err
	}
	next := c.HTTPSPort
	for _, a := range addrs {
		l, port, err := add(a, next)
		if err != nil {
			return nil, nil, err
		}
		crypt, next = append(crypt, l), int(port) // if it was 0, all addresses get the same port
	}
	s.HTTPS = netip.AddrPortFrom(station, uint16(next))
	return open, crypt, nil
}

// httpsAddresses returns the addresses that HTTPS listens on.
func (c Config) httpsAddresses(station netip.Addr) ([]netip.Addr, error) {
	out := []netip.Addr{station} // units report there
	more := c.HTTPSAddresses
	if len(more) == 0 {
		more = []string{"127.0.0.1"}
	}
	for _, text := range more {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, kind{fmt.Errorf("--https-address %q: want an IP address", text), ErrConfig}
		}
		if a.IsUnspecified() {
			return []netip.Addr{a}, nil
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// hosts returns the names and addresses in the certificate: those of the station and all others of this machine.
func hosts(station netip.Addr) []string {
	out := []string{station.String(), "localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		out = append(out, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr().String())
		}
	}
	return out
}

// serveOpen adds the service without encryption: the files for firmware and iPXE, the CA, and a redirect to the dashboard.
func (s *Server) serveOpen(log *slog.Logger, l net.Listener, boot *netboot.HTTP, ca *api.Authority) {
	mux := http.NewServeMux()
	boot.Register(mux)
	mux.HandleFunc("GET /"+api.CAFile, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Write(ca.PEM())
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("https://%s/", s.HTTPS), http.StatusFound)
	})
	around := func(l net.Listener) net.Listener { return limit.NewListener(l) }
	s.services = append(s.services, httpService("HTTP at "+l.Addr().String(), log, l, around, mux))
}

// serveCrypt adds the encrypted service at each of its addresses.
func (s *Server) serveCrypt(log *slog.Logger, at []net.Listener, conf *tls.Config, units *api.Server, pages *web.Web, boot *netboot.HTTP) {
	mux := http.NewServeMux()
	units.Register(mux)
	pages.Register(mux)
	boot.Register(mux)
	around := func(l net.Listener) net.Listener { return tls.NewListener(limit.NewListener(l), conf) }
	for _, l := range at {
		s.services = append(s.services, httpService("HTTPS at "+l.Addr().String(), log, l, around, strict(mux)))
	}
}

// strict tells browsers to use HTTPS only.
func strict(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		h.ServeHTTP(w, r)
	})
}

// httpService serves h on the open port l. It reopens the port whenever it is started again. around wraps the
// listener.
func httpService(name string, log *slog.Logger, l net.Listener, around func(net.Listener) net.Listener, h http.Handler) guard.Service {
	address := l.Addr().String()
	return guard.Service{Name: name, Serve: func(ctx context.Context) error {
		if l == nil {
			again, err := net.Listen("tcp", address)
			if err != nil {
				return kind{err, ErrPort}
			}
			l = again
		}
		defer func() {
			l.Close()
			l = nil
		}()
		return serveHTTP(ctx, log, around(l), h)
	}}
}

// serveHTTP serves only HTTP/1.1, until ctx ends. It then gives requests five seconds to finish. Streams end at once,
// with their context.
func serveHTTP(ctx context.Context, log *slog.Logger, l net.Listener, h http.Handler) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // HTTP/2 is a lot of code to expose before any login, and is not needed here
	srv := &http.Server{
		Protocols:         protocols,
		Handler:           guard.Handler(log, h),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
	defer srv.Close() // after a panic: its connections end with it
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
