package lab

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"
)

// NewSecureBootKey makes an RSA key and a certificate for it.
func NewSecureBootKey() (*SecureBootKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make key for Secure Boot: %w", err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab db"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		return nil, fmt.Errorf("make certificate for Secure Boot: %w", err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make certificate for Secure Boot: %w", err)
	}
	return &SecureBootKey{k, c}, nil
}

// Glance returns the lengths of files that others write to, as they were at one and the same moment: none of them grew while the
// lengths were read. So the logs of several disks, cut there, show what the disks had done at that moment.
func Glance(paths ...string) ([]int64, error) {
	var last []int64
	for range 10_000 {
		now := make([]int64, len(paths))
		for i, p := range paths {
			st, err := os.Stat(p)
			if err != nil {
				return nil, fmt.Errorf("look at write logs: %w", err)
			}
			now[i] = st.Size()
		}
		same := last != nil
		for i := range last {
			same = same && last[i] == now[i]
		}
		if same {
			return now, nil
		}
		last = now
	}
	return nil, errors.New("look at write logs: they never stand still")
}

// NoReboot makes the machine go off where it would start again.
func NoReboot() Option { return func(o *startOptions) { o.noReboot = true } }

// DirectKernel starts a kernel with an initramfs and a command line that QEMU loads itself, past boot loaders and disks: to compare
// initramfs archives, which is no life of a unit.
func DirectKernel(kernel, initrd, cmdline string) Option {
	return func(o *startOptions) { o.kernel = &directKernel{kernel, initrd, cmdline} }
}

// FirmwareMenu makes the firmware wait five seconds for a key that opens its boot menu, as a board does. UEFI only.
func FirmwareMenu() Option { return func(o *startOptions) { o.menu = true } }
