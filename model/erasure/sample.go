package erasure

// MinSamples is how many informative samples a device needs: a thousandth of it that is left is then missed with less than one in a
// hundred.
const MinSamples = 4700
