package signature

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// textPrefix begins each message of SignText. It is longer than the hash and the signature that minisign signs, so that a signature
// of a text can never be taken for that of a file.
const textPrefix = "gprovision: not the signature of a file, but of the following text, by itself.\n"

// SignText returns the Ed25519 signature (RFC 8032), 64 bytes, of a short text that both sides know: for what a person types.
func (k PrivateKey) SignText(text string) ([]byte, error) {
	pair, ok := k.pair()
	if !k.set || !ok {
		return nil, errors.New("sign: there is no private key")
	}
	return ed25519.Sign(pair, []byte(textPrefix+text)), nil
}

// VerifyText returns the key among keys that signed the text with SignText. The error wraps ErrSignature if none did.
func VerifyText(keys []PublicKey, text string, sig []byte) (PublicKey, error) {
	for _, k := range keys {
		if pub, err := k.bytes(); err == nil && ed25519.Verify(pub, []byte(textPrefix+text), sig) { // one of another length neither
			return k, nil
		}
	}
	return PublicKey{}, fmt.Errorf("verify signature of a text by one of %d keys: %w", len(keys), ErrSignature)
}
