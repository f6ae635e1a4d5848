package bootimage

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"slices"
	"unicode/utf16"
)

// ErrBadSignature says that a signature inside a PE file does not fit the file, or does not hold.
var ErrBadSignature = errors.New("signature does not hold")

// Signature is one Authenticode signature of a PE file whose hash and value were found right. Whether its certificate is
// trusted is for the firmware to say.
type Signature struct {
	// Certificate is that of the signer.
	Certificate *x509.Certificate
}

// certificateTable is the number of the data directory that says where the signatures are; unlike the others it holds an
// offset in the file. certificateAlign is the alignment of the table and of its entries, bytes.
const (
	certificateTable = 4
	certificateAlign = 8
)

// WIN_CERTIFICATE of the UEFI specification, section 32.2.4: length, revision, type, PKCS #7 data.
const (
	winCertHeader   = 8
	winCertRevision = 0x0200
	winCertPKCS7    = 0x0002
	maxSignature    = 1 << 20
	maxSignatures   = 16
)

// Object identifiers: RFC 5652, RFC 8017, and "Windows Authenticode Portable Executable Signature Format".
func oidSignedData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
}
func oidContentType() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
}
func oidMessageDigest() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
}
func oidRSA() asn1.ObjectIdentifier    { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} }
func oidSHA256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} }
func oidIndirectData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
}
func oidPEImageData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
}

type indirectData struct {
	Data   typedValue
	Digest digestInfo
}

type typedValue struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,tag:0"`
}

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          contentInfo
	Certificates     asn1.RawValue `asn1:"optional,tag:0"`
	CRLs             asn1.RawValue `asn1:"optional,tag:1"`
	Signers          []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version         int
	Issuer          issuerAndSerial
	DigestAlgorithm pkix.AlgorithmIdentifier
	Attributes      asn1.RawValue `asn1:"optional,tag:0"`
	Algorithm       pkix.AlgorithmIdentifier
	Value           []byte
	Unsigned        asn1.RawValue `asn1:"optional,tag:1"`
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// SignPE returns image, a PE file for x86-64, with an Authenticode signature for UEFI Secure Boot: SHA-256, RSA with PKCS #1
// v1.5, which is what the UEFI specification asks of every firmware. The first certificate is the signer's, those behind it
// go along. There is no time stamp in it, so the same input gives the same bytes. Errors: a file that is signed already, that
// has no room for a signature or gaps between its sections (over which programs disagree what the hash is); a key that is
// no RSA key of at least 2048 bits, or not that of the certificate.
func SignPE(image []byte, key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	if err := checkSigner(key, chain); err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	p, err := parsePE(sliceReader(image), int64(len(image)))
	if err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	entry, err := p.certificateEntry(sliceReader(image), int64(len(image)))
	if err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	if entry.size != 0 {
		return nil, errors.New("sign PE file: it is signed already")
	}
	if err := p.contiguous(); err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	out := append(bytes.Clone(image), make([]byte, roundUp(int64(len(image)), certificateAlign)-int64(len(image)))...)
	end := int64(len(out))
	sum, err := p.hash(sliceReader(out), end, entry.at)
	if err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	der, err := signDigest(sum, key, chain)
	if err != nil {
		return nil, fmt.Errorf("sign PE file: %w", err)
	}
	length := roundUp(int64(winCertHeader+len(der)), certificateAlign)
	if end+length > 1<<31 {
		return nil, errors.New("sign PE file: more than 2 GiB")
	}
	cert := make([]byte, length)
	binary.LittleEndian.PutUint32(cert, uint32(length))
	binary.LittleEndian.PutUint16(cert[4:], winCertRevision)
	binary.LittleEndian.PutUint16(cert[6:], winCertPKCS7)
	copy(cert[winCertHeader:], der)
	binary.LittleEndian.PutUint32(out[entry.at:], uint32(end))
	binary.LittleEndian.PutUint32(out[entry.at+4:], uint32(length))
	return append(out, cert...), nil
}

func checkSigner(key crypto.Signer, chain []*x509.Certificate) error {
	if key == nil || len(chain) == 0 {
		return errors.New("a key and a certificate are needed")
	}
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok || public.N.BitLen() < 2048 {
		return errors.New("the key must be an RSA key of at least 2048 bits: firmware knows no other")
	}
	if !public.Equal(chain[0].PublicKey) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

// certificateEntry is the data directory entry of the signatures.
type certificateEntry struct {
	at     int64 // offset of the entry itself
	offset int64 // of the signatures, bytes
	size   int64 // of the signatures, bytes; 0: none
}

func (p *peFile) certificateEntry(r io.ReaderAt, size int64) (certificateEntry, error) {
	e := certificateEntry{at: p.optional + 112 + certificateTable*8}
	if p.directories <= certificateTable || e.at+8 > p.table {
		return e, errors.New("its header has no place for a signature")
	}
	var b [8]byte
	if err := readAt(r, size, b[:], e.at); err != nil {
		return e, err
	}
	e.offset, e.size = int64(binary.LittleEndian.Uint32(b[:])), int64(binary.LittleEndian.Uint32(b[4:]))
	if e.size != 0 && (e.offset+e.size != size || e.offset%certificateAlign != 0) {
		return e, fmt.Errorf("%w: it is not at the end of the file", ErrBadSignature)
	}
	return e, nil
}

// byOffset returns the sections that have content, in the order of the file.
func (p *peFile) byOffset() []Section {
	var out []Section
	for _, s := range p.sections {
		if s.RawSize > 0 {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Section) int { return int(int64(a.Offset) - int64(b.Offset)) })
	return out
}

// contiguous says where two sections overlap or leave a gap.
func (p *peFile) contiguous() error {
	at := int64(p.sizeOfHeaders)
	for _, s := range p.byOffset() {
		if int64(s.Offset) != at {
			return fmt.Errorf("section %q starts at %d in the file, the one before ends at %d", s.Name, s.Offset, at)
		}
		at += int64(s.RawSize)
	}
	return nil
}

// hash computes the Authenticode hash of the size bytes before the signatures: the headers without checksum and the entry of
// the signatures at offset entry, the sections in the order of the file, and what is behind them.
func (p *peFile) hash(r io.ReaderAt, size, entry int64) ([]byte, error) {
	h := sha256.New()
	head := int64(p.sizeOfHeaders)
	checksum := p.optional + 64
	if head < p.table+int64(len(p.sections))*sectionHeader || head > size {
		return nil, fmt.Errorf("its headers end at %d", head)
	}
	for _, part := range [][2]int64{{0, checksum}, {checksum + 4, entry}, {entry + 8, head}} {
		if err := hashRange(h, r, part[0], part[1]); err != nil {
			return nil, err
		}
	}
	sum := head
	for _, s := range p.byOffset() {
		end := int64(s.Offset) + int64(s.RawSize)
		if end > size {
			return nil, fmt.Errorf("section %q ends at %d of %d bytes", s.Name, end, size)
		}
		if err := hashRange(h, r, int64(s.Offset), end); err != nil {
			return nil, err
		}
		sum += int64(s.RawSize)
	}
	if sum < size {
		if err := hashRange(h, r, sum, size); err != nil {
			return nil, err
		}
	}
	return h.Sum(nil), nil
}

func hashRange(h hash.Hash, r io.ReaderAt, from, to int64) error {
	if from > to {
		return errors.New("its headers overlap")
	}
	n, err := io.Copy(h, io.NewSectionReader(r, from, to-from))
	if err == nil && n != to-from {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// obsolete is the file name that every signer writes in place of one.
const obsolete = "<<<Obsolete>>>"

// signDigest returns the PKCS #7 data for a file with that hash.
func signDigest(sum []byte, key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	sha := pkix.AlgorithmIdentifier{Algorithm: oidSHA256(), Parameters: asn1.NullRawValue}
	content, err := asn1.Marshal(indirectData{typedValue{oidPEImageData(), asn1.RawValue{FullBytes: peImageData()}}, digestInfo{sha, sum}})
	if err != nil {
		return nil, err
	}
	attributes, err := signedAttributes(content)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(element(asn1.TagSet, asn1.ClassUniversal, attributes))
	value, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("use the key: %w", err)
	}
	var certificates []byte
	for _, c := range chain {
		certificates = append(certificates, c.Raw...)
	}
	data, err := asn1.Marshal(signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{sha},
		Content:          contentInfo{oidIndirectData(), explicit(content)},
		Certificates:     asn1.RawValue{FullBytes: element(0, asn1.ClassContextSpecific, certificates)},
		Signers: []signerInfo{{
			Version:         1,
			Issuer:          issuerAndSerial{asn1.RawValue{FullBytes: chain[0].RawIssuer}, chain[0].SerialNumber},
			DigestAlgorithm: sha,
			Attributes:      asn1.RawValue{FullBytes: element(0, asn1.ClassContextSpecific, attributes)},
			Algorithm:       pkix.AlgorithmIdentifier{Algorithm: oidRSA(), Parameters: asn1.NullRawValue},
			Value:           value,
		}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData(), explicit(data)})
}

// signedAttributes returns the content of the set of attributes: what kind of content is signed, and the hash of content
// without its tag and length.
func signedAttributes(content []byte) ([]byte, error) {
	var inner asn1.RawValue
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return nil, err
	}
	kind, err := asn1.Marshal(oidIndirectData())
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(inner.Bytes)
	var out []byte
	for _, a := range []attribute{ // in the order of their encodings, as DER wants it
		{oidContentType(), []asn1.RawValue{{FullBytes: kind}}},
		{oidMessageDigest(), []asn1.RawValue{{FullBytes: element(asn1.TagOctetString, asn1.ClassUniversal, digest[:])}}},
	} {
		b, err := asn1.Marshal(a)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// peImageData is SpcPeImageData: no flags, and a file name that nobody reads.
func peImageData() []byte {
	var name []byte
	for _, u := range utf16.Encode([]rune(obsolete)) {
		name = binary.BigEndian.AppendUint16(name, u)
	}
	text, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: name})
	if err != nil {
		panic(err) // see element
	}
	file := element(0, asn1.ClassContextSpecific, element(2, asn1.ClassContextSpecific, text))
	return element(asn1.TagSequence, asn1.ClassUniversal, append(element(asn1.TagBitString, asn1.ClassUniversal, []byte{0}), file...))
}

// element encodes a DER element. Sequences, sets and context-specific elements are constructed.
func element(tag, class int, content []byte) []byte {
	v := asn1.RawValue{Tag: tag, Class: class, Bytes: content}
	v.IsCompound = class == asn1.ClassContextSpecific || tag == asn1.TagSequence || tag == asn1.TagSet
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(err) // a raw value of constant tags can always be encoded
	}
	return b
}

// explicit puts content into an element with the tag 0. The field that holds it adds no tag to a raw value of its own.
func explicit(content []byte) asn1.RawValue {
	return asn1.RawValue{FullBytes: element(0, asn1.ClassContextSpecific, content)}
}

// Signatures returns the Authenticode signatures of a PE file of size bytes, none if it is not signed. Each one is checked: its
// hash must be that of the file, and its value must be made by the certificate that it names. Else: ErrBadSignature. Hashes
// other than SHA-256 and keys other than RSA are errors too.
func Signatures(r io.ReaderAt, size int64) ([]Signature, error) {
	p, err := parsePE(r, size)
	if err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	entry, err := p.certificateEntry(r, size)
	if errors.Is(err, ErrBadSignature) {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	if err != nil || entry.size == 0 {
		return nil, nil // no room for signatures: none
	}
	if entry.size > maxSignature {
		return nil, fmt.Errorf("read signatures: %d bytes, want at most %d", entry.size, maxSignature)
	}
	sum, err := p.hash(r, entry.offset, entry.at)
	if err != nil {
		return nil, fmt.Errorf("read signatures: %w: %w", ErrBadSignature, err)
	}
	table := make([]byte, entry.size)
	if err := readAt(r, size, table, entry.offset); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	var out []Signature
	for len(table) >= winCertHeader && len(out) < maxSignatures {
		length := int(binary.LittleEndian.Uint32(table))
		if length < winCertHeader || length > len(table) {
			return nil, fmt.Errorf("read signatures: %w: one of %d bytes", ErrBadSignature, length)
		}
		if kind := binary.LittleEndian.Uint16(table[6:]); kind != winCertPKCS7 {
			return nil, fmt.Errorf("read signatures: type %#x is not known", kind)
		}
		c, err := verifyDigest(table[winCertHeader:length], sum)
		if err != nil {
			return nil, fmt.Errorf("read signatures: %w", err)
		}
		out = append(out, Signature{Certificate: c})
		table = table[min(int(roundUp(int64(length), certificateAlign)), len(table)):]
	}
	return out, nil
}

// verifyDigest checks PKCS #7 data, perhaps padded, for a file with that hash, and returns the signer's certificate.
func verifyDigest(b, sum []byte) (*x509.Certificate, error) {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrBadSignature, what) }
	var outer contentInfo
	if _, err := asn1.Unmarshal(b, &outer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	var data signedData
	if !outer.Type.Equal(oidSignedData()) {
		return nil, bad("no signed data")
	}
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	if !data.Content.Type.Equal(oidIndirectData()) || len(data.Signers) != 1 {
		return nil, bad("not for a PE file, or not of one signer")
	}
	content := data.Content.Content.Bytes
	var indirect indirectData
	if _, err := asn1.Unmarshal(content, &indirect); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	if !indirect.Digest.Algorithm.Algorithm.Equal(oidSHA256()) {
		return nil, bad("its hash is not SHA-256")
	}
	if !bytes.Equal(indirect.Digest.Digest, sum) {
		return nil, bad("the file was changed")
	}
	signer := data.Signers[0]
	if !signer.DigestAlgorithm.Algorithm.Equal(oidSHA256()) || !attributesFit(signer.Attributes.Bytes, content) {
		return nil, bad("its attributes do not fit")
	}
	certificates, err := x509.ParseCertificates(data.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	for _, c := range certificates {
		if !bytes.Equal(c.RawIssuer, signer.Issuer.Issuer.FullBytes) || signer.Issuer.Serial == nil || c.SerialNumber.Cmp(signer.Issuer.Serial) != 0 {
			continue
		}
		public, ok := c.PublicKey.(*rsa.PublicKey)
		if !ok {
			return nil, bad("its key is no RSA key")
		}
		digest := sha256.Sum256(element(asn1.TagSet, asn1.ClassUniversal, signer.Attributes.Bytes))
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signer.Value); err != nil {
			return nil, bad("its value is wrong")
		}
		return c, nil
	}
	return nil, bad("the signer's certificate is missing")
}

// attributesFit reports whether the attributes name the kind of content and the hash of it.
func attributesFit(attributes, content []byte) bool {
	var inner asn1.RawValue
	if _, err := asn1.Unmarshal(content, &inner); err != nil {
		return false
	}
	want := sha256.Sum256(inner.Bytes)
	kind, digest := false, false
	for len(attributes) > 0 {
		var a attribute
		rest, err := asn1.Unmarshal(attributes, &a)
		if err != nil || len(a.Values) != 1 {
			return false
		}
		attributes = rest
		switch {
		case a.Type.Equal(oidContentType()):
			var id asn1.ObjectIdentifier
			_, err := asn1.Unmarshal(a.Values[0].FullBytes, &id)
			kind = err == nil && id.Equal(oidIndirectData())
		case a.Type.Equal(oidMessageDigest()):
			digest = bytes.Equal(a.Values[0].Bytes, want[:])
		}
	}
	return kind && digest
}
