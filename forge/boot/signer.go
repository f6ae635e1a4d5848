package boot

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// ReadSigner reads an RSA key (PKCS #8 or PKCS #1, not encrypted) and one or more certificates from PEM files. The first
// certificate is that of the key. bootimage.SignPE says what fits.
func ReadSigner(keyFile, certFile string) (crypto.Signer, []*x509.Certificate, error) {
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the key for Secure Boot: %w", err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("read the key for Secure Boot: %s: %w", keyFile, err)
	}
	if raw, err = os.ReadFile(certFile); err != nil {
		return nil, nil, fmt.Errorf("read the certificate for Secure Boot: %w", err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("read the certificate for Secure Boot: %s: %w", certFile, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, nil, fmt.Errorf("read the certificate for Secure Boot: %s holds none in PEM", certFile)
	}
	return key, chain, nil
}

func parseKey(raw []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncryptedKey
			}
			return x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncryptedKey
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			s, ok := k.(crypto.Signer)
			if !ok {
				return nil, errors.New("it is no key for signatures")
			}
			return s, nil
		}
	}
	return nil, errors.New("it holds no private key in PEM")
}

var errEncryptedKey = errors.New("it is encrypted: decrypt it first, for example with openssl pkey, into a directory in memory")
