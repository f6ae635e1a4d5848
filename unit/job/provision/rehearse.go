package provision

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/manifest"
)

// carriesData says whether one of the planned disks is not blank: the unit may be complete, and must stay so if the files of
// the manifest turn out to be bad.
func (j *job) carriesData() (bool, error) {
	for _, d := range append([]block.Disk{j.recovery}, j.main...) {
		blank, why, err := j.BlankDisk(d.Path)
		if err != nil {
			return false, fault.Because(fault.DiskWrite, err)
		}
		if !blank {
			j.Log.Info("disk is not blank", "disk", d.Name, "carries", why)
			return true, nil
		}
	}
	return false, nil
}

// stall is how long a rehearsal waits for more bytes of a file.
const stall = 30 * time.Second

// rehearse reads a file of the manifest to its end and compares size and hash, without keeping it.
func (j *job) rehearse(ctx context.Context, f manifest.File) error {
	want, err := manifest.HashFor(f, j.Policy.AllowSHA1)
	if err != nil {
		return err
	}
	if err := j.head(ctx, f); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(stall, cancel)
	defer watchdog.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.Src, nil)
	if err != nil {
		return fault.Because(fault.ManifestSyntax, err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	client, err := j.source()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fault.Because(fault.Download, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.Newf(fault.Download, "get %s: HTTP status %s", f.Src, resp.Status)
	}
	j.Log.Info("reading without keeping", "file", path.Base(f.Src), "bytes", f.Size)
	meter, stop := j.Track(ctx, f.Size)
	defer stop()
	h := want.New()
	body := readerFunc(func(b []byte) (int, error) {
		watchdog.Reset(stall)
		return resp.Body.Read(b)
	})
	n, err := io.Copy(h, meter.Reader(body))
	if err != nil {
		return fault.Because(fault.DownloadTruncated, fmt.Errorf("get %s: after %d bytes: %w", f.Src, n, err))
	}
	if f.Size > 0 && n < f.Size {
		return fault.Newf(fault.DownloadTruncated, "get %s: %d bytes came, wanted are %d", f.Src, n, f.Size)
	}
	if got := h.Sum(nil); !bytes.Equal(got, want.Sum) {
		return fault.Newf(fault.DownloadHash, "%s has %s %x, wanted is %s", path.Base(f.Src), want.Name, got, want)
	}
	return nil
}

// readerFunc is a function that reads.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
