"""What can go wrong in the store; a class's docstring is its message and says what to check."""


class StorageError(Exception):
    """The store failed."""

    def __init__(self, particular: object = "") -> None:
        message = " ".join((type(self).__doc__ or "").split())
        super().__init__(f"{message} ({particular})" if particular != "" else message)


class MalformedUID(StorageError):
    """A UID must be at most 64 digits and single dots (PS3.5 9.1)."""


class DiskLow(StorageError):
    """The disk of the store is fuller than its watermark allows: free some space or move the store."""


class StoreUnusable(StorageError):
    """The store's folder cannot be written: check its owner, whether its disk went read-only, and the units' ReadWritePaths=."""


class StoreInUse(StorageError):
    """Another mammonode serve uses this folder or database: stop it, or give each its own storage.folder and storage.database."""


class StoreOfAnother(StorageError):
    """The store is another node's: give each its own storage.folder or bucket.url, or let mammonode adopt take it over."""


class BucketUnavailable(StorageError):
    """The bucket did not do as asked: check its server, and [bucket]."""


class BucketLibraryMissing(StorageError):
    """A bucket needs its library: pip install 'mammonode[s3]'."""


class AlreadyStored(StorageError):
    """A file of this SOP Instance UID is in the store already."""


class DatabaseUnavailable(StorageError):
    """The database did not answer: check that it runs, that its disk has room and that the URL is right."""


class DatabaseDamaged(DatabaseUnavailable):
    """The database is damaged: stop the node and restore a backup (mammonode restore --replace FILE)."""


class DatabaseRefuses(DatabaseUnavailable):
    """The database lets this node not write: check its user's rights, the file's owner, and whether it is a standby."""


class DatabaseURLUnknown(StorageError):
    """The database URL must be sqlite:///FILE or postgresql://USER@HOST/NAME."""


class DriverMissing(StorageError):
    """PostgreSQL needs its driver: pip install 'mammonode[postgres]'."""


class SchemaUnknown(StorageError):
    """The database was made by another version of Mammonode: install that version or a newer one."""


class DatabaseServed(StorageError):
    """A mammonode serve of a former version uses this database: upgrade that one; it brings the database up to date itself."""


class NoSuchExam(StorageError):
    """No exam has this id: list them with mammonode exams."""


class AmbiguousExam(StorageError):
    """Several exams begin with this id: type more of its characters."""


class ExamChanged(StorageError):
    """An image arrived while the exam was being closed: look at the exam again."""


class NoSuchConflict(StorageError):
    """No conflict has this number: list them with mammonode conflicts."""


class CannotDecide(StorageError):
    """The conflict cannot be decided so: list those that wait with mammonode conflicts."""


class NoSuchJob(StorageError):
    """No job has this number."""


class CannotRetry(StorageError):
    """Only a waiting, done or dead job of the present revision of an exam whose images are kept can be tried again."""


class CannotCancel(StorageError):
    """Only a reading that waits or runs, of the present revision of its exam, can be cancelled."""


class LeaseLost(StorageError):
    """The job was taken over by another worker or superseded: drop this result."""


class ResultDiffers(StorageError):
    """A result with this SOP Instance UID but other bytes was issued before (rule R1 forbids it)."""


class NoSuchToken(StorageError):
    """No token of this name is in force: list them with mammonode tokens."""


class TokenExists(StorageError):
    """A token of this name is in force: revoke it first, or take another name."""


class NoSuchWorkitem(StorageError):
    """There is no workitem with this UID."""


class WorkitemExists(StorageError):
    """There is a workitem with this UID already."""


class WorkitemEnded(StorageError):
    """The workitem is completed or cancelled already."""


class BackupExists(StorageError):
    """There is such a file already: name another, a backup overwrites nothing."""


class BackupUnwritable(StorageError):
    """The backup cannot be written there: the folder must exist, and its disk have room and know hard links."""


class BackupUnusable(StorageError):
    """The file is damaged, or no backup of Mammonode's database: take another one."""


class DatabaseHoldsExams(StorageError):
    """The database holds exams, which a restore replaces: take a backup of them first, then say --replace."""


class DatabaseEmpty(StorageError):
    """The database has no tables: check storage.database and storage.folder, and whether the node has ever run."""
