package erasure

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gprovision/model/signature"
)

// codeTitle begins each text of Codes. All that a text has is in the alphanumeric set of QR codes (ISO/IEC 18004, 7.3.4), where a character
// takes 5.5 bits.
const codeTitle = "GPROV-ERASE"

const (
	// MaxCodes is the largest number of texts of one certificate.
	MaxCodes = 99
	// codeHead is the largest length of what stands before the data: title, number, hash.
	codeHead = len(codeTitle) + len(":99/99:01234567:")
	// maxCodes is the largest length of all texts together, as they are pasted.
	maxCodes = 2 * (MaxCertificate + signature.MaxSize)
)

// ErrCodes says that texts are not all those of one certificate, or damaged.
var ErrCodes = errors.New("not the codes of one certificate")

// Codes returns a certificate and its signature as texts of at most so many characters, to be shown as QR codes where a unit has a screen
// and nothing else. A certificate of a unit with a few drives takes about 2,000 characters in all.
func Codes(certificate, sig []byte, most int) ([]string, error) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err == nil {
		_, err = w.Write(append(append(bytes.Clone(sig), 0), certificate...))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("make codes: %w", err)
	}
	data := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(packed.Bytes())
	room := most - codeHead
	if room < 1 || (len(data)+room-1)/room > MaxCodes {
		return nil, fmt.Errorf("make codes of %d characters: %d do not fit into %d: %w", most, len(data), MaxCodes, ErrCodes)
	}
	n := (len(data) + room - 1) / room
	out := make([]string, n)
	for i := range out {
		part := data[i*room : min((i+1)*room, len(data))]
		out[i] = fmt.Sprintf("%s:%d/%d:%s:%s", codeTitle, i+1, n, codeHash(packed.Bytes()), part)
	}
	return out, nil
}

// codeHash tells the codes of one certificate from those of another.
func codeHash(packed []byte) string {
	sum := sha256.Sum256(packed)
	return strings.ToUpper(fmt.Sprintf("%x", sum[:4]))
}

// ParseCodes returns the certificate and its signature from what Codes made, in any order, with blanks and lines between them as they are
// pasted; each may be there more than once. Nothing of that is checked yet but that it is whole. The error wraps ErrCodes.
func ParseCodes(text string) (certificate, sig []byte, err error) {
	if len(text) > maxCodes {
		return nil, nil, fmt.Errorf("%d characters, at most %d: %w", len(text), maxCodes, ErrCodes)
	}
	var parts []string
	hash, found := "", 0
	for _, word := range strings.Fields(text) {
		f := strings.SplitN(word, ":", 4)
		if len(f) != 4 || f[0] != codeTitle {
			return nil, nil, fmt.Errorf("%.20q does not begin as a code: %w", word, ErrCodes)
		}
		number, of, _ := strings.Cut(f[1], "/")
		i, err1 := strconv.Atoi(number)
		n, err2 := strconv.Atoi(of)
		if err1 != nil || err2 != nil || n < 1 || n > MaxCodes || i < 1 || i > n || f[3] == "" {
			return nil, nil, fmt.Errorf("code %.10q: %w", f[1], ErrCodes)
		}
		if parts == nil {
			parts, hash = make([]string, n), f[2]
		}
		if len(parts) != n || hash != f[2] || parts[i-1] != "" && parts[i-1] != f[3] {
			return nil, nil, fmt.Errorf("code %d is that of another certificate than the first one: %w", i, ErrCodes)
		}
		if parts[i-1] == "" {
			found++
		}
		parts[i-1] = f[3]
	}
	if found == 0 || found < len(parts) {
		return nil, nil, fmt.Errorf("%d of %d codes are there: %w", found, len(parts), ErrCodes)
	}
	packed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.Join(parts, ""))
	if err != nil || codeHash(packed) != hash {
		return nil, nil, fmt.Errorf("they are damaged: %w", errors.Join(ErrCodes, err))
	}
	const most = MaxCertificate + signature.MaxSize + 1
	b, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), most+1))
	sig, certificate, ok := bytes.Cut(b, []byte{0})
	if err != nil || !ok || len(b) > most {
		return nil, nil, fmt.Errorf("they are damaged: %w", errors.Join(ErrCodes, err))
	}
	return certificate, sig, nil
}
