package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"gprovision/model/record"
)

// Names of the authority's files in the data directory.
const (
	// CAFile is the certificate that units and browsers must trust, in PEM.
	CAFile = "ca.pem"
	// CAKeyFile is its private key.
	CAKeyFile = "ca.key"
)

// notBefore is long before any certificate was made, because the clock of a new unit may be years behind.
var notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	caYears   = 30
	leafYears = 2
	renewDays = 60
)

// Authority is the server's own certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time
}

// OpenAuthority reads the authority from a directory. If neither of its two files exists, it makes both. A single one
// is an error: units trust the old certificate, and a new one would lock them out.
func OpenAuthority(dir string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile)
	certPEM, err1 := os.ReadFile(certPath)
	keyPEM, err2 := os.ReadFile(keyPath)
	switch {
	case errors.Is(err1, os.ErrNotExist) && errors.Is(err2, os.ErrNotExist):
		return makeAuthority(certPath, keyPath)
	case err1 != nil || err2 != nil:
		return nil, fmt.Errorf("read the server's CA: %w", errors.Join(err1, err2))
	}
	cb, _ := pem.Decode(certPEM)
	kb, _ := pem.Decode(keyPEM)
	if cb == nil || kb == nil {
		return nil, fmt.Errorf("read the server's CA: %s or %s is not in PEM", certPath, keyPath)
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", certPath, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(kb.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", keyPath, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the server's CA: %s and %s do not belong together", certPath, keyPath)
	}
	return &Authority{cert, key, certPEM, time.Now}, nil
}

func makeAuthority(certPath, keyPath string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the server's CA: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("gprovision factory CA %x", serial.Bytes()[:4])},
		NotBefore:             notBefore,
		NotAfter:              time.Now().AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the server's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	kb, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeNew(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb}), 0o600); err != nil {
		return nil, err
	}
	if err := writeNew(certPath, certPEM, 0o644); err != nil {
		return nil, errors.Join(err, os.Remove(keyPath))
	}
	return &Authority{cert, key, certPEM, time.Now}, nil
}

func writeNew(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// PEM returns the certificate that units and browsers must trust.
func (a *Authority) PEM() []byte { return bytes.Clone(a.pem) }

// Audience returns the name of this server in the requests that units sign (record.Audience).
func (a *Authority) Audience() string { return record.Audience(a.cert) }

// TLS returns the configuration of a server with these names and addresses. The certificate exists in memory only,
// and is renewed before it expires.
func (a *Authority) TLS(hosts []string) (*tls.Config, error) {
	l := &leaf{a: a, hosts: hosts}
	if _, err := l.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: l.get, NextProtos: []string{"http/1.1"}}, nil
}

// leaf is the server's current certificate.
type leaf struct {
	a     *Authority
	hosts []string
	mu    sync.Mutex
	cert  *tls.Certificate
}

func (l *leaf) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cert == nil || l.a.now().AddDate(0, 0, renewDays).After(l.cert.Leaf.NotAfter) {
		c, err := l.a.issue(l.hosts)
		if err != nil {
			return nil, err
		}
		l.cert = c
	}
	return l.cert, nil
}

func (a *Authority) issue(hosts []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "gprovision factory server"},
		NotBefore:    notBefore,
		NotAfter:     a.now().AddDate(leafYears, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			if !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
				t.IPAddresses = append(t.IPAddresses, ip)
			}
		} else if h != "" && !slices.Contains(t.DNSNames, h) {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}
