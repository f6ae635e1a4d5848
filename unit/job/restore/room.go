package restore

import (
	"context"
	"os"
	"path/filepath"

	"gprovision/model/fault"
	"gprovision/unit/image"
	"gprovision/unit/machine"
)

// checkRoom returns an error unless the image has room in the main system that would be made, before anything is written. What it needs is
// known from the proof: the signed word of who judged it when it was made, or the unit's own judgement of each entry.
func (j *restoring) checkRoom(ctx context.Context) error {
	need := image.Beside(j.need, j.Firmware, artifactSize(filepath.Join(j.Places.Recovery, j.Site.Names.BootFile)))
	room, err := image.Room(ctx, j.Run, j.size(), need)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return image.CheckRoom(need, room)
}

// artifactSize is the size of a boot artifact, or a usual one if it cannot be looked at.
func artifactSize(file string) int64 {
	if machine.Regular(file) == nil {
		if st, err := os.Lstat(file); err == nil {
			return st.Size()
		}
	}
	return 64 << 20
}
