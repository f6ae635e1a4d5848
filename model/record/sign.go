package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The HTTP headers of a signed request.
const (
	// HeaderUnit is the unit's name.
	HeaderUnit = "Gprov-Unit"
	// HeaderTime is the timestamp, in milliseconds since 1970 in UTC.
	HeaderTime = "Gprov-Time"
	// HeaderSignature is the Ed25519 signature of SigningString, in base64.
	HeaderSignature = "Gprov-Signature"
)

// MaxSkew is how far the timestamp of a request may be from the server's clock.
const MaxSkew = 10 * time.Minute

// Why a request is not accepted as signed.
var (
	// ErrClock says that the timestamp is too far from the server's clock.
	ErrClock = errors.New("the timestamp is too far from the server's clock")
	// ErrSignature says that the signature does not hold or is missing.
	ErrSignature = errors.New("the signature does not hold")
)

// SigningString returns what is signed of a request: six lines, each ended by a newline: "gprov-v1", the method, the path
// with the query as on the request line, the unit, the timestamp in milliseconds, and the SHA-256 of the body in lower case
// hexadecimal. A newline inside method, path or unit is impossible in a valid request; VerifyRequest refuses it.
func SigningString(method, path, unit string, t time.Time, body []byte) []byte {
	sum := sha256.Sum256(body)
	return []byte("gprov-v1\n" + method + "\n" + path + "\n" + unit + "\n" + strconv.FormatInt(t.UnixMilli(), 10) + "\n" + hex.EncodeToString(sum[:]) + "\n")
}

// SignRequest returns the headers, by name, that make a request a signed one.
func SignRequest(key ed25519.PrivateKey, method, path, unit string, t time.Time, body []byte) map[string]string {
	return map[string]string{
		HeaderUnit:      unit,
		HeaderTime:      strconv.FormatInt(t.UnixMilli(), 10),
		HeaderSignature: base64.StdEncoding.EncodeToString(ed25519.Sign(key, SigningString(method, path, unit, t, body))),
	}
}

// Stamp is what the headers of a signed request claim. It proves nothing until VerifyRequest has accepted it.
type Stamp struct {
	Unit      string
	Time      time.Time
	Signature []byte
}

// ParseStamp reads the headers of a signed request. get returns the value of a header, such as http.Header.Get.
func ParseStamp(get func(string) string) (Stamp, error) {
	var s Stamp
	s.Unit = get(HeaderUnit)
	if err := CheckUnit(s.Unit); err != nil {
		return Stamp{}, fmt.Errorf("header %s: %w", HeaderUnit, err)
	}
	ms, err := strconv.ParseInt(get(HeaderTime), 10, 64)
	if err != nil || ms < 0 || ms > 1<<52 {
		return Stamp{}, fmt.Errorf("header %s: %q, want milliseconds since 1970", HeaderTime, get(HeaderTime))
	}
	s.Time = time.UnixMilli(ms)
	s.Signature, err = base64.StdEncoding.DecodeString(get(HeaderSignature))
	if err != nil || len(s.Signature) != ed25519.SignatureSize {
		return Stamp{}, fmt.Errorf("header %s: want %d bytes in base64", HeaderSignature, ed25519.SignatureSize)
	}
	return s, nil
}

// VerifyRequest says whether s is a signature of key over this request, made within MaxSkew of now. The errors are
// ErrSignature and, only for a signature that holds, ErrClock.
func VerifyRequest(key ed25519.PublicKey, s Stamp, method, path string, body []byte, now time.Time) error {
	if len(key) != ed25519.PublicKeySize || strings.ContainsAny(method+path+s.Unit, "\n\r") {
		return ErrSignature
	}
	if !ed25519.Verify(key, SigningString(method, path, s.Unit, s.Time, body), s.Signature) {
		return ErrSignature
	}
	if d := now.Sub(s.Time); d > MaxSkew || d < -MaxSkew {
		return ErrClock
	}
	return nil
}
