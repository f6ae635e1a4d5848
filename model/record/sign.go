package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
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
	// HeaderAudience names the server that the request is meant for: see Audience. Without it a request is of SchemeV1.
	HeaderAudience = "Gprov-Audience"
	// HeaderHash is the SHA-256 of the body in lower case hexadecimal.
	HeaderHash = "Gprov-Content-Sha256"
	// HeaderSignature is the Ed25519 signature of what the scheme says is signed, in base64.
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
	// ErrAudience says that the request is meant for another server.
	ErrAudience = errors.New("the request is signed for another server")
)

// Scheme says what a signature covers.
type Scheme int

// The schemes of signed requests.
const (
	// SchemeV1 names no server, and the hash of the body is not in a header. It is that of version 0.1.0.
	SchemeV1 Scheme = 1
	// SchemeV2 names the server, and the body's hash is known before the body.
	SchemeV2 Scheme = 2
)

// Audience names a server by the certificate that vouches for it: the SHA-256 of that certificate's public key (the DER form of its
// SubjectPublicKeyInfo), in lower case hexadecimal. A server that moves keeps it, and no two servers have the same.
func Audience(ca *x509.Certificate) string { return BodyHash(ca.RawSubjectPublicKeyInfo) }

// BodyHash returns the SHA-256 of a body in the form of HeaderHash.
func BodyHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// SigningString returns what is signed of a request: seven lines, each ended by a newline: "gprov-v2", the audience, the method, the
// path with the query as on the request line, the unit, the timestamp in milliseconds, and the hash of the body. A newline inside
// method, path or unit is impossible in a valid request; Stamp.Verify refuses it.
func SigningString(audience, method, path, unit string, t time.Time, hash string) []byte {
	return []byte("gprov-v2\n" + audience + "\n" + method + "\n" + path + "\n" + unit + "\n" + strconv.FormatInt(t.UnixMilli(), 10) + "\n" + hash + "\n")
}

// SigningStringV1 returns what SchemeV1 signs: the same lines without the audience, the first one being "gprov-v1".
func SigningStringV1(method, path, unit string, t time.Time, hash string) []byte {
	return []byte("gprov-v1\n" + method + "\n" + path + "\n" + unit + "\n" + strconv.FormatInt(t.UnixMilli(), 10) + "\n" + hash + "\n")
}

// SignRequest returns the headers, by name, that make a request to the server of an audience a signed one.
func SignRequest(key ed25519.PrivateKey, audience, method, path, unit string, t time.Time, body []byte) map[string]string {
	hash := BodyHash(body)
	return map[string]string{
		HeaderUnit:      unit,
		HeaderTime:      strconv.FormatInt(t.UnixMilli(), 10),
		HeaderAudience:  audience,
		HeaderHash:      hash,
		HeaderSignature: base64.StdEncoding.EncodeToString(ed25519.Sign(key, SigningString(audience, method, path, unit, t, hash))),
	}
}

// Stamp is what the headers of a signed request claim. It proves nothing until Verify has accepted it.
type Stamp struct {
	// Scheme says what the signature covers.
	Scheme Scheme
	// Unit is the unit's name.
	Unit string
	// Time is the timestamp.
	Time time.Time
	// Audience is that of the server which the request is meant for, empty for SchemeV1.
	Audience string
	// Hash is that of the body. SchemeV1 has none: who verifies fills in the hash of the body that has been read.
	Hash string
	// Signature is the signature, of the right length.
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
	s.Scheme, s.Audience, s.Hash = SchemeV2, get(HeaderAudience), get(HeaderHash)
	if s.Audience == "" {
		s.Scheme, s.Hash = SchemeV1, ""
		return s, nil
	}
	for _, h := range []string{HeaderAudience, HeaderHash} {
		if !lowerHash(get(h)) {
			return Stamp{}, fmt.Errorf("header %s: want a SHA-256 in lower case hexadecimal", h)
		}
	}
	return s, nil
}

// lowerHash reports whether s is a SHA-256 in lower case hexadecimal.
func lowerHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && s == strings.ToLower(s)
}

// Verify returns an error unless s is a signature of key over this request to the server of an audience, made within MaxSkew of now. The
// body is not looked at: that it has Stamp.Hash is for the caller to check. The errors are ErrAudience, ErrSignature and, only for a
// signature that holds, ErrClock.
func (s Stamp) Verify(key ed25519.PublicKey, audience, method, path string, now time.Time) error {
	if len(key) != ed25519.PublicKeySize || s.Hash == "" || strings.ContainsAny(method+path+s.Unit, "\n\r") {
		return ErrSignature
	}
	signed := SigningStringV1(method, path, s.Unit, s.Time, s.Hash)
	if s.Scheme != SchemeV1 {
		if s.Audience != audience {
			return ErrAudience
		}
		signed = SigningString(audience, method, path, s.Unit, s.Time, s.Hash)
	}
	if !ed25519.Verify(key, signed, s.Signature) {
		return ErrSignature
	}
	if d := now.Sub(s.Time); d > MaxSkew || d < -MaxSkew {
		return ErrClock
	}
	return nil
}
