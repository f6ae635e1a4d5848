package provision

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/report"
	"gprovision/unit/uplink"
)

// fetchSmall returns the content of a small file (uplink.Small).
func (j *job) fetchSmall(ctx context.Context, address string, most int64) ([]byte, error) {
	client, err := j.source()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	return uplink.Small(ctx, j.Log, client, address, most)
}

// rules is what this unit knows when it judges a manifest.
func (j *job) rules() manifest.Rules {
	return manifest.Rules{Prefix: j.Site.Names.ImagePrefix, BootFile: j.Site.Names.BootFile, AllowSHA1: j.Policy.AllowSHA1, Platform: j.Identity.Variant.DevCodeName}
}

// checkFiles looks at the room for the manifest's files before anything is written.
func (j *job) checkFiles() error {
	p := j.unit.Recovery.Table.Find(layout.Recovery)
	room, total := p.Size-p.Size/20, int64(0)
	for _, f := range j.manifest.Files {
		if f.Size > room-total {
			return fault.Newf(fault.NoSpace, "the recovery volume has room for %d bytes, and %s with %d bytes does not fit behind the %d before it", room, f.Src, f.Size, total)
		}
		total += f.Size
	}
	return nil
}

// checkServer asks the server for what the job will fetch, before anything is cleared: each file is there and has its size, and
// beside each image lies a signature for that name by a key of the policy. The content is verified when it arrives.
func (j *job) checkServer(ctx context.Context) error {
	full, err := j.carriesData()
	if err != nil {
		return err
	}
	if full {
		j.Log.Info("the disks are not blank: all files are read once before anything is erased")
		return j.lookAtServer(ctx, j.rehearse)
	}
	return j.lookAtServer(ctx, j.head)
}

// lookAtServer looks at each file with look, and at the signature of each image.
func (j *job) lookAtServer(ctx context.Context, look func(context.Context, manifest.File) error) error {
	prefix := j.Site.Names.ImagePrefix
	for _, f := range j.manifest.Files {
		if err := look(ctx, f); err != nil {
			return err
		}
		if !f.IsImage(prefix) {
			continue
		}
		place, err := f.Place(prefix)
		if err != nil {
			return err
		}
		name, err := release.ParseName(path.Base(place), prefix)
		if err != nil {
			return fault.Because(fault.ImageName, err)
		}
		sig, err := j.fetchSmall(ctx, f.Src+signature.Suffix, signature.MaxSize)
		switch {
		case errors.Is(err, report.ErrNotFound) && j.Policy.AllowUnsigned:
			continue
		case errors.Is(err, report.ErrNotFound):
			return fault.Newf(fault.ImageUnsigned, "%s%s does not exist", f.Src, signature.Suffix)
		case err != nil:
			return err
		}
		if err := image.CheckSignature(sig, j.Keys, name); err != nil {
			return err
		}
	}
	return nil
}

// headTries is how often the server is asked for a file's size.
const headTries = 3

// head compares what the server says of a file with the manifest. A server that says nothing of it is no failure: the download
// will tell.
func (j *job) head(ctx context.Context, f manifest.File) error {
	client, err := j.source()
	if err != nil {
		return err
	}
	client.Timeout = 20 * time.Second
	defer client.CloseIdleConnections()
	var last error
	for range headTries {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, f.Src, nil)
		if err != nil {
			return fault.Because(fault.ManifestSyntax, err)
		}
		req.Header.Set("Accept-Encoding", "identity")
		resp, err := client.Do(req)
		if err != nil {
			j.Log.Warn("server does not answer, trying again", "url", f.Src, "err", err)
			last = err
			continue
		}
		resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
			return fault.Newf(fault.Download, "get %s: %w", f.Src, report.ErrNotFound)
		case resp.StatusCode == http.StatusOK && f.Size > 0 && resp.ContentLength >= 0 && resp.ContentLength < f.Size:
			return fault.Newf(fault.DownloadTruncated, "get %s: the server has %d bytes, wanted are %d", f.Src, resp.ContentLength, f.Size)
		case resp.StatusCode == http.StatusOK && f.Size > 0 && resp.ContentLength > f.Size:
			return fault.Newf(fault.DownloadHash, "get %s: the server has %d bytes, wanted are %d", f.Src, resp.ContentLength, f.Size)
		}
		return nil
	}
	var dial *net.OpError
	if errors.As(last, &dial) && dial.Op == "dial" {
		return fault.Newf(fault.NoServer, "get %s: %w", f.Src, dial)
	}
	return fault.Because(fault.Download, last)
}

// setHash says what a download must hash to.
func setHash(o *report.FetchOptions, h manifest.Hash) {
	if h.Name == "sha256" {
		o.SHA256 = hex.EncodeToString(h.Sum)
	} else {
		o.SHA1 = hex.EncodeToString(h.Sum)
	}
}

// writeFiles streams each file of the manifest to its place on the recovery volume, verified while it arrives and read back
// from the device.
func (j *job) writeFiles(ctx context.Context) error {
	if err := j.runSteps(ctx, manifest.RunBeforeImaging); err != nil {
		return err
	}
	for _, f := range j.manifest.Files {
		hash, err := manifest.HashFor(f, j.Policy.AllowSHA1)
		if err != nil {
			return err
		}
		place, err := f.Place(j.Site.Names.ImagePrefix)
		if err != nil {
			return err
		}
		dest := filepath.Join(j.Places.Recovery, place)
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
		j.Log.Info("downloading", "file", path.Base(f.Src), "bytes", f.Size, journal.ForPerson())
		client, err := j.source()
		if err != nil {
			return err
		}
		meter, stop := j.Track(ctx, f.Size)
		o := report.FetchOptions{
			Client: client, URL: f.Src, Dest: dest, Size: f.Size, Log: j.Log,
			ReadBack: func(path string) (io.ReadCloser, error) { return block.OpenDirect(path) },
			Progress: func(done, total int64) { meter.SetTotal(total); meter.Set(done) },
		}
		setHash(&o, hash)
		_, err = report.Fetch(ctx, o)
		stop()
		client.CloseIdleConnections()
		if err != nil {
			return err
		}
		if f.IsImage(j.Site.Names.ImagePrefix) {
			if err := j.fetchSignature(ctx, f, dest); err != nil {
				return err
			}
			if j.unit.Original == "" {
				j.unit.Original = filepath.Base(dest)
			}
		}
		if place == j.Site.Names.BootFile {
			if err := j.artifactSignature(ctx, f, dest); err != nil {
				return err
			}
		}
		j.Log.Info("file verified", "file", path.Base(f.Src))
	}
	if err := j.checkArtifact(); err != nil {
		return err
	}
	for _, w := range []manifest.When{manifest.RunAfterImaging, manifest.RunBeforeMfg, manifest.RunAfterMfg} {
		if err := j.runSteps(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// fetchSignature fetches the signature that lies beside an image and checks the image with it, so that a wrong key is found
// here and not at the first restore.
func (j *job) fetchSignature(ctx context.Context, f manifest.File, dest string) error {
	sig, err := j.fetchSmall(ctx, f.Src+signature.Suffix, signature.MaxSize)
	if errors.Is(err, report.ErrNotFound) {
		if j.Policy.AllowUnsigned {
			return nil
		}
		return fault.Newf(fault.ImageUnsigned, "%s%s does not exist", f.Src, signature.Suffix)
	}
	if err != nil {
		return err
	}
	if _, err := machine.PutFile(dest+signature.Suffix, 0o644, bytes.NewReader(sig)); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	name, err := release.ParseName(filepath.Base(dest), j.Site.Names.ImagePrefix)
	if err != nil {
		return fault.Because(fault.ImageName, err)
	}
	st, err := os.Stat(dest)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	meter, stop := j.Track(ctx, st.Size())
	defer stop()
	_, need, err := image.Proven(ctx, image.Image{Path: dest, Name: name, Size: st.Size()}, j.Policy, j.Keys, meter.Set)
	if err != nil {
		return err
	}
	return j.fits(ctx, need)
}

// fits says whether an image has room in the main system that the first restore will make: better here than there.
func (j *job) fits(ctx context.Context, need filesystem.Need) error {
	need = image.Beside(need, j.Firmware, 0)
	room, err := image.Room(ctx, j.Run, image.MainSize(j.unit), need)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return image.CheckRoom(need, room)
}

// artifactSignature fetches the signature that may lie beside the boot artifact. One that is there must hold.
func (j *job) artifactSignature(ctx context.Context, f manifest.File, dest string) error {
	sig, err := j.fetchSmall(ctx, f.Src+signature.Suffix, signature.MaxSize)
	if errors.Is(err, report.ErrNotFound) || err == nil && len(j.Keys) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	a, err := machine.ReadArtifact(dest)
	if err != nil {
		return fault.Because(fault.ManifestIncomplete, fmt.Errorf("%s is no boot artifact: %w", j.Site.Names.BootFile, err))
	}
	if _, err := machine.PutFile(dest+signature.Suffix, 0o600, bytes.NewReader(sig)); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	if _, err := image.SignedArtifact(dest, a.Build, j.Site.Names.ImagePrefix, j.Keys); err != nil {
		return fault.Because(fault.ManifestIncomplete, err)
	}
	return nil
}

// checkArtifact makes sure that the boot artifact is one before the unit depends on it.
func (j *job) checkArtifact() error {
	if _, err := machine.ReadArtifact(filepath.Join(j.Places.Recovery, j.Site.Names.BootFile)); err != nil {
		return fault.Because(fault.ManifestIncomplete, fmt.Errorf("%s is no boot artifact: %w", j.Site.Names.BootFile, err))
	}
	return nil
}

// reportUnit confirms the credentials and tells the server that the unit is done.
func (j *job) reportUnit(ctx context.Context) error {
	if err := j.client.Confirm(ctx, j.generation); err != nil {
		return fault.Because(fault.NoCredentials, err)
	}
	return nil
}
