package report

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gprovision/hw/durable"
	"gprovision/model/fault"
)

// FetchOptions say what to fetch, where to put it, and how to check it.
type FetchOptions struct {
	// URL is the address of the file, http or https.
	URL string
	// Dest is the path of the new file. Its directory must exist. The file appears there whole or not at all.
	Dest string
	// SHA256 and SHA1 are the expected hashes in hexadecimal. An empty one is not checked. If both are empty, nothing
	// is checked: that is right only if the caller verifies a signature.
	SHA256, SHA1 string
	// Size is the expected size in bytes. 0 means unknown.
	Size int64
	// MaxSize limits the size in bytes if Size is unknown. 0 means 16 GiB.
	MaxSize int64
	// Reserve is how many bytes must stay free beside the file. 0 means 1 MiB.
	Reserve int64
	// Client makes the requests. nil means a plain client without an overall time limit.
	Client *http.Client
	// ReadBack opens the written file so that its bytes come from the device, not from the page cache. If it is nil,
	// the file is not read back.
	ReadBack func(path string) (io.ReadCloser, error)
	// Progress, if not nil, is called often with the number of bytes so far and the total. A total of 0 means
	// unknown.
	Progress func(done, total int64)
	// Attempts is how many attempts in a row may bring nothing new before Fetch gives up. 0 means 8.
	Attempts int
	// Patience limits the time for the whole fetch. 0 means six hours.
	Patience time.Duration
	// Idle limits how long a connection may bring nothing. 0 means 30 s.
	Idle time.Duration
	// Resume continues what an earlier call with the same URL and Dest left, even after a restart of the unit. If
	// this call fails in a way that another may overcome, it keeps what has arrived. The server needs strong ETags.
	Resume bool
	// Log gets a line for each repeated attempt.
	Log *slog.Logger

	wait func(context.Context, time.Duration) error
	now  func() time.Time
	free func(dir string) (int64, error)
}

// ErrNotFound means that the server has no such file (HTTP status 404).
var ErrNotFound = errors.New("the server has no such file")

// Fetched is the result of Fetch.
type Fetched struct {
	// Size is the size of the file in bytes.
	Size int64
	// SHA256 is its hash in hexadecimal, lower case.
	SHA256 string
	// Attempts is how many requests were needed.
	Attempts int
	// Resumed is how many bytes did not need another transfer, summed over all interruptions.
	Resumed int64
}

// Fetch fetches the file at o.URL to o.Dest. It writes to Dest.part beside it, hashes the content as it arrives,
// syncs it, reads it back, and only then renames it. After an interruption it resumes. It repeats attempts with
// growing pauses. On failure no part of the file stays, except with Resume: then Parts finds it and RemovePart
// removes it.
//
// Its errors carry a fault: Download (no answer, or a refusal), DownloadTruncated, DownloadHash (wrong content or
// size), NoSpace, DiskWrite, ReadBack. An HTTP status of 400 to 499 ends the fetch at once, except for 408 and 429.
func Fetch(ctx context.Context, o FetchOptions) (Fetched, error) {
	if o.Client == nil {
		protocols := &http.Protocols{}
		protocols.SetHTTP1(true)
		o.Client = &http.Client{Transport: &http.Transport{Protocols: protocols, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 30 * time.Second, IdleConnTimeout: time.Minute}}
	}
	if o.MaxSize == 0 {
		o.MaxSize = 16 << 30
	}
	if o.Reserve == 0 {
		o.Reserve = 1 << 20
	}
	if o.Attempts == 0 {
		o.Attempts = 8
	}
	if o.Patience == 0 {
		o.Patience = 6 * time.Hour
	}
	if o.Idle == 0 {
		o.Idle = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.wait == nil {
		o.wait = sleep
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.free == nil {
		o.free = FreeSpace
	}
	part := o.Dest + partSuffix
	t := &transfer{o: o, total: o.Size, s256: sha256.New(), s1: sha1.New()}
	if err := t.openPart(ctx); err != nil {
		return Fetched{}, err
	}
	f := t.f
	var err error
	if o.Size > 0 {
		err = t.space(o.Size - t.at)
	}
	if err == nil {
		err = t.run(ctx)
	}
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fault.Because(diskFault(err), fmt.Errorf("sync %s: %w", part, err))
		}
	} else if t.retryable {
		t.writeNote()
	}
	if e := f.Close(); err == nil && e != nil {
		err = fault.Because(diskFault(e), e)
	}
	if err != nil && t.retryable && t.noted > 0 {
		return Fetched{}, err
	}
	if err == nil && o.ReadBack != nil {
		err = t.readBack(ctx, part)
	}
	if err == nil {
		if err = os.Rename(part, o.Dest); err == nil {
			err = errors.Join(RemovePart(o.Dest), durable.Sync(filepath.Dir(o.Dest)))
		}
		if err != nil {
			err = fault.Because(fault.DiskWrite, err)
		}
	}
	if err != nil {
		return Fetched{}, errors.Join(err, RemovePart(o.Dest))
	}
	return Fetched{Size: t.at, SHA256: hex.EncodeToString(t.s256.Sum(nil)), Attempts: t.requests, Resumed: t.resumed}, nil
}

// transfer is one file in transit.
type transfer struct {
	o         FetchOptions
	f         *os.File
	at        int64 // bytes written and hashed
	noted     int64 // of those, the bytes that are on the device and in the note
	retryable bool  // another call may succeed
	total     int64 // 0: unknown
	etag      string
	s256, s1  hash.Hash
	requests  int
	resumed   int64
}

// errFinal is the error of an attempt that is not worth repeating.
type errFinal struct{ err error }

func (e *errFinal) Error() string { return e.err.Error() }
func (e *errFinal) Unwrap() error { return e.err }

// run repeats attempts until the content is complete and correct.
func (t *transfer) run(ctx context.Context) error {
	limit := t.o.now().Add(t.o.Patience)
	pause, idle, wrong := time.Second, 0, 0
	for {
		before := t.at
		t.retryable = false
		err := t.attempt(ctx)
		if err == nil {
			if err = t.check(); err == nil {
				return nil
			}
			// The content is wrong. Try once more from the start, in case something between us and the server is to
			// blame.
			if wrong++; wrong > 1 {
				return fault.Because(fault.DownloadHash, err)
			}
			if err := t.restart(); err != nil {
				return err
			}
		}
		var final *errFinal
		if errors.As(err, &final) {
			return final.err
		}
		if idle++; t.at > before {
			idle, pause = 0, time.Second
		}
		t.retryable = true
		if ctx.Err() != nil {
			// The context ended. Whatever failed at the same moment no longer matters.
			return fault.Because(fault.Download, fmt.Errorf("get %s: %w", t.o.URL, ctx.Err()))
		}
		if idle >= t.o.Attempts || t.o.now().Add(pause).After(limit) {
			kind := fault.Download
			if errors.Is(err, io.ErrUnexpectedEOF) {
				kind = fault.DownloadTruncated
			}
			return fault.Because(kind, fmt.Errorf("get %s: %w", t.o.URL, err))
		}
		t.o.Log.Warn("download interrupted, trying again", "url", t.o.URL, "bytes", t.at, "total", t.total, "error", err.Error(), "pause", pause.String())
		if ended := t.o.wait(ctx, pause); ended != nil {
			// Report the failure of the last complete attempt too. It says more than the end of the context.
			return fault.Because(fault.Download, fmt.Errorf("get %s: %w, before that: %w", t.o.URL, ended, err))
		}
		pause = min(2*pause, 30*time.Second)
	}
}

// attempt requests the missing bytes and writes what arrives.
func (t *transfer) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := errors.New("the connection brings nothing")
	idle := time.AfterFunc(t.o.Idle, func() { cancel(stall) })
	defer idle.Stop()
	explain := func(err error) error {
		if c := context.Cause(ctx); errors.Is(c, stall) {
			return c
		}
		return err
	}

	req, err := http.NewRequestWithContext(ctx, "GET", t.o.URL, nil)
	if err != nil {
		return &errFinal{fault.Because(fault.Download, err)}
	}
	req.Header.Set("Accept-Encoding", "identity")
	if t.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.at))
		req.Header.Set("If-Range", t.etag)
	}
	t.requests++
	resp, err := t.o.Client.Do(req)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) || fault.Of(err) != nil {
		return &errFinal{fault.Because(fault.Download, err)}
	}
	if err != nil {
		return explain(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && t.at > 0:
		from, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != t.at || t.total > 0 && total > 0 && total != t.total {
			if err := t.restart(); err != nil {
				return err
			}
			return fmt.Errorf("the server answers another range than asked for: %q", resp.Header.Get("Content-Range"))
		}
		t.resumed += t.at
	case resp.StatusCode == http.StatusOK:
		if err := t.restart(); err != nil {
			return err
		}
		t.etag = resp.Header.Get("ETag")
		if strings.HasPrefix(t.etag, "W/") {
			t.etag = "" // a weak one does not vouch for bytes
		}
		if n := resp.ContentLength; n >= 0 {
			if t.o.Size > 0 && n != t.o.Size {
				return &errFinal{fault.Newf(fault.DownloadHash, "get %s: the server has %d bytes, wanted are %d", t.o.URL, n, t.o.Size)}
			}
			if n > t.o.MaxSize {
				return &errFinal{fault.Newf(fault.DownloadHash, "get %s: %d bytes, at most %d are allowed", t.o.URL, n, t.o.MaxSize)}
			}
			if t.o.Size == 0 {
				if err := t.space(n); err != nil {
					return &errFinal{err}
				}
			}
			t.total = n
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && t.at > 0:
		if err := t.restart(); err != nil {
			return err
		}
		return errors.New("the file changed on the server")
	case resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return fmt.Errorf("HTTP status %s", resp.Status)
	default:
		if resp.StatusCode == http.StatusNotFound {
			return &errFinal{fault.Newf(fault.Download, "get %s: %w", t.o.URL, ErrNotFound)}
		}
		return &errFinal{fault.Newf(fault.Download, "get %s: HTTP status %s", t.o.URL, resp.Status)}
	}

	most := t.o.MaxSize
	if t.total > 0 {
		most = t.total
	}
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			idle.Reset(t.o.Idle)
			if t.at+int64(n) > most {
				return &errFinal{fault.Newf(fault.DownloadHash, "get %s: more than the %d bytes that were expected", t.o.URL, most)}
			}
			if _, err := t.f.WriteAt(buf[:n], t.at); err != nil {
				return &errFinal{fault.Because(diskFault(err), fmt.Errorf("write %s: %w", t.f.Name(), err))}
			}
			t.s256.Write(buf[:n])
			t.s1.Write(buf[:n])
			t.at += int64(n)
			if t.at-t.noted >= noteEvery {
				t.writeNote()
			}
			t.o.Progress(t.at, t.total)
		}
		if err == io.EOF {
			if t.total > 0 && t.at < t.total {
				return fmt.Errorf("%d of %d bytes: %w", t.at, t.total, io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			err = explain(err)
			if t.etag == "" { // nothing vouches that the rest is of the same file
				if e := t.restart(); e != nil {
					return e
				}
			}
			return fmt.Errorf("%d of %d bytes: %w", t.at, t.total, err)
		}
	}
}

// restart discards what has arrived.
func (t *transfer) restart() error {
	t.at, t.noted, t.total, t.etag = 0, 0, t.o.Size, ""
	t.s256.Reset()
	t.s1.Reset()
	if err := os.Remove(t.o.Dest + noteSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &errFinal{fault.Because(fault.DiskWrite, err)}
	}
	if err := t.f.Truncate(0); err != nil {
		return &errFinal{fault.Because(fault.DiskWrite, err)}
	}
	return nil
}

// check compares the hashes.
func (t *transfer) check() error {
	for _, h := range []struct {
		name, want string
		got        hash.Hash
	}{{"SHA-256", t.o.SHA256, t.s256}, {"SHA-1", t.o.SHA1, t.s1}} {
		if got := hex.EncodeToString(h.got.Sum(nil)); h.want != "" && !strings.EqualFold(got, h.want) {
			return fmt.Errorf("get %s: %s of %d bytes is %s, wanted is %s", t.o.URL, h.name, t.at, got, strings.ToLower(h.want))
		}
	}
	return nil
}

// space returns an error unless there is room for n more bytes and the reserve.
func (t *transfer) space(n int64) error {
	free, err := t.o.free(filepath.Dir(t.o.Dest))
	if err != nil {
		return fault.Because(fault.DiskWrite, fmt.Errorf("free space of %s: %w", filepath.Dir(t.o.Dest), err))
	}
	if n > free-t.o.Reserve {
		return fault.Newf(fault.NoSpace, "%s needs %d bytes, %d are free in %s", t.o.URL, n, free, filepath.Dir(t.o.Dest))
	}
	return nil
}

// readBack hashes the file again, from the device.
func (t *transfer) readBack(ctx context.Context, path string) error {
	r, err := t.o.ReadBack(path)
	if err != nil {
		return fault.Because(fault.ReadBack, fmt.Errorf("open %s to read it back: %w", path, err))
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.LimitReader(contextReader{ctx, r}, t.at+1), make([]byte, 1<<20))
	if err != nil {
		return fault.Because(fault.ReadBack, fmt.Errorf("read %s back: %w", path, err))
	}
	if n != t.at || hex.EncodeToString(h.Sum(nil)) != hex.EncodeToString(t.s256.Sum(nil)) {
		return fault.Newf(fault.ReadBack, "%s differs from what was written: %d bytes, %d were written", path, n, t.at)
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// contentRange parses "bytes FROM-TO/TOTAL". For a TOTAL of "*", total is 0.
func contentRange(s string) (from, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(s, "/")
	first, _, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || from < 0 {
		return 0, 0, false
	}
	if all != "*" {
		if total, err = strconv.ParseInt(all, 10, 64); err != nil || total < 0 {
			return 0, 0, false
		}
	}
	return from, total, true
}

// diskFault returns the fault of a failed write.
func diskFault(err error) *fault.Fault {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.NoSpace
	}
	return fault.DiskWrite
}

// FreeSpace returns how many more bytes this process may write below dir.
func FreeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
