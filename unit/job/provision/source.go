package provision

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"gprovision/model/fault"
	"gprovision/unit/machine"
	"gprovision/unit/report"
	"gprovision/unit/uplink"
)

// origin is where the manifest and its files come from.
type origin struct{ m *machine.Machine }

func from(m *machine.Machine) origin { return origin{m} }

// client returns a client for the manifest and its files. Over https the policy's CA vouches for servers: it alone where the policy has no
// keys, so that nothing else vouches for what they say, and beside the authorities of the artifact otherwise. Nothing leads away from
// https.
func (o origin) client() (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Time: func() time.Time {
		if now := time.Now(); now.After(o.m.Build.Time) {
			return now
		}
		return o.m.Build.Time
	}}
	if o.m.Policy.ServerCA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil || len(o.m.Policy.Keys) == 0 {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM([]byte(o.m.Policy.ServerCA)) {
			return nil, fault.Newf(fault.Policy, "serverCA holds no certificate in PEM")
		}
		conf.RootCAs = pool
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			Protocols: protocols, TLSHandshakeTimeout: 30 * time.Second, TLSClientConfig: conf,
			DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 10 {
				return errors.New("more than ten redirects")
			}
			if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return fault.Newf(fault.Download, "%s leads away from https, to %s", via[0].URL, r.URL)
			}
			return nil
		},
	}, nil
}

// small returns the content of a small file (uplink.Small).
func (o origin) small(ctx context.Context, address string, most int64) ([]byte, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	return uplink.Small(ctx, o.m.Log, client, address, most)
}

// headTries is how often the server is asked for a file's size.
const headTries = 3

// head compares what the server says of a file with the manifest, and returns the size that the server says, 0 if it says none. A server
// that says nothing of the file is no failure: the download will tell.
func (o origin) head(ctx context.Context, f File) (size int64, err error) {
	client, err := o.client()
	if err != nil {
		return 0, err
	}
	client.Timeout = 20 * time.Second
	defer client.CloseIdleConnections()
	var last error
	for range headTries {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, f.Src, nil)
		if err != nil {
			return 0, fault.Because(fault.ManifestSyntax, err)
		}
		req.Header.Set("Accept-Encoding", "identity")
		resp, err := client.Do(req)
		if err != nil {
			o.m.Log.Warn("server does not answer, trying again", "url", f.Src, "err", err)
			last = err
			continue
		}
		resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
			return 0, fault.Newf(fault.Download, "get %s: %w", f.Src, report.ErrNotFound)
		case resp.StatusCode == http.StatusOK && f.Size > 0 && resp.ContentLength >= 0 && resp.ContentLength < f.Size:
			return 0, fault.Newf(fault.DownloadTruncated, "get %s: the server has %d bytes, wanted are %d", f.Src, resp.ContentLength, f.Size)
		case resp.StatusCode == http.StatusOK && f.Size > 0 && resp.ContentLength > f.Size:
			return 0, fault.Newf(fault.DownloadHash, "get %s: the server has %d bytes, wanted are %d", f.Src, resp.ContentLength, f.Size)
		case resp.StatusCode == http.StatusOK:
			return max(resp.ContentLength, 0), nil
		}
		return 0, nil
	}
	var dial *net.OpError
	if errors.As(last, &dial) && dial.Op == "dial" {
		return 0, fault.Newf(fault.NoServer, "get %s: %w", f.Src, dial)
	}
	return 0, fault.Because(fault.Download, last)
}

// fetch brings a file to dest, verified while it arrives, and read back by readBack if there is one.
func (o origin) fetch(ctx context.Context, f File, dest string, readBack func(path string) (io.ReadCloser, error)) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	meter, stop := o.m.Track(ctx, f.Size)
	defer stop()
	options := report.FetchOptions{
		Client: client, URL: f.Src, Dest: dest, Size: f.Size, Log: o.m.Log, ReadBack: readBack,
		Progress: func(done, total int64) { meter.SetTotal(total); meter.Set(done) },
	}
	if sum := hex.EncodeToString(f.Hash.Sum); f.Hash.Name == "sha256" {
		options.SHA256 = sum
	} else {
		options.SHA1 = sum
	}
	_, err = report.Fetch(ctx, options)
	return err
}

// stall is how long a rehearsal waits for more bytes of a file.
const stall = 30 * time.Second

// readToEnd reads a file to its end and compares size and hash, without keeping it. It returns how many bytes the file has.
func (o origin) readToEnd(ctx context.Context, f File) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(stall, cancel)
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.Src, nil)
	if err != nil {
		return 0, fault.Because(fault.ManifestSyntax, err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	client, err := o.client()
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return 0, fault.Because(fault.Download, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fault.Newf(fault.Download, "get %s: HTTP status %s", f.Src, resp.Status)
	}
	o.m.Log.Info("reading without keeping", "file", f.Name, "bytes", f.Size)
	meter, stop := o.m.Track(ctx, f.Size)
	defer stop()
	h := f.Hash.New()
	body := readerFunc(func(b []byte) (int, error) {
		watchdog.Reset(stall)
		return resp.Body.Read(b)
	})
	n, err := io.Copy(h, meter.Reader(body))
	if err != nil {
		return 0, fault.Because(fault.DownloadTruncated, fmt.Errorf("get %s: after %d bytes: %w", f.Src, n, err))
	}
	if f.Size > 0 && n < f.Size {
		return 0, fault.Newf(fault.DownloadTruncated, "get %s: %d bytes came, wanted are %d", f.Src, n, f.Size)
	}
	if got := h.Sum(nil); !bytes.Equal(got, f.Hash.Sum) {
		return 0, fault.Newf(fault.DownloadHash, "%s has %s %x, wanted is %s", f.Name, f.Hash.Name, got, f.Hash)
	}
	return n, nil
}

// readerFunc is a function that reads.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
